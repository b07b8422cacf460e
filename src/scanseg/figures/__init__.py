"""Figures on matplotlib axes, and pictures of label maps."""

from scanseg.figures.calibration import draw_dice_over_entropy, draw_error_over_entropy, draw_reliability
from scanseg.figures.curves import draw_loss, draw_validation_dice
from scanseg.figures.instances import draw_score_over_iou
from scanseg.figures.pictures import (
    FILM_ENDINGS,
    PICTURE_ENDINGS,
    Caption,
    draw_montage,
    draw_planes,
    write_figure,
    write_film,
)
from scanseg.figures.rendering import PLANE_NAMES, Look, Style, render_plane
from scanseg.figures.scene import Scene, choose_slice, count_values, displayed_labels, make_scene
from scanseg.figures.scores import draw_bland_altman, draw_confusion, draw_distribution, draw_volumes
from scanseg.figures.slices import draw_slice
from scanseg.figures.spread import draw_dice_over_time, draw_spread

__all__ = [
    "FILM_ENDINGS",
    "PICTURE_ENDINGS",
    "PLANE_NAMES",
    "Caption",
    "Look",
    "Scene",
    "Style",
    "choose_slice",
    "count_values",
    "displayed_labels",
    "draw_bland_altman",
    "draw_confusion",
    "draw_dice_over_entropy",
    "draw_dice_over_time",
    "draw_distribution",
    "draw_error_over_entropy",
    "draw_loss",
    "draw_montage",
    "draw_planes",
    "draw_reliability",
    "draw_score_over_iou",
    "draw_slice",
    "draw_spread",
    "draw_validation_dice",
    "draw_volumes",
    "make_scene",
    "render_plane",
    "write_figure",
    "write_film",
]
