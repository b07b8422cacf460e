"""Random changes of training patches: drawn on the host, applied to a whole batch where the batch is.

Source: the transforms and their defaults follow nnU-Net (Isensee et al. 2021, supplement).
"""

from scanseg.data.augmentation.intensity import apply_intensity
from scanseg.data.augmentation.mirroring import mirror
from scanseg.data.augmentation.spatial import Warps, draw_warps, warped_coordinates

__all__ = ["Warps", "apply_intensity", "draw_warps", "mirror", "warped_coordinates"]
