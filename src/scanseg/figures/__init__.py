"""Figures: functions that draw data on matplotlib axes."""

from scanseg.figures.curves import draw_loss, draw_validation_dice
from scanseg.figures.slices import draw_slice
from scanseg.figures.spread import draw_dice_over_time, draw_spread

__all__ = [
    "draw_dice_over_time",
    "draw_loss",
    "draw_slice",
    "draw_spread",
    "draw_validation_dice",
]
