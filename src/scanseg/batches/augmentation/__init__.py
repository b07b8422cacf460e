"""Augmentation: random changes of training patches.

Parameters are drawn on the host. The changes are applied to a whole batch on its device.

Source: the transforms and their defaults follow nnU-Net (Isensee et al. 2021, supplement).
"""

from scanseg.batches.augmentation.colour import change_colours
from scanseg.batches.augmentation.intensity import apply_intensity
from scanseg.batches.augmentation.mirroring import mirror
from scanseg.batches.augmentation.predicted import perturb_labels
from scanseg.batches.augmentation.spatial import Warps, draw_warps, warped_coordinates

__all__ = [
    "Warps",
    "apply_intensity",
    "change_colours",
    "draw_warps",
    "mirror",
    "perturb_labels",
    "warped_coordinates",
]
