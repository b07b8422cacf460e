"""Figures: functions of data and of the axes to draw on."""

from scanseg.figures.slices import LABEL_COLOURS, draw_slice

__all__ = ["LABEL_COLOURS", "draw_slice"]
