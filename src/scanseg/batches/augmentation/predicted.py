"""Random changes of first-stage labels in the training of a second stage.

They make the second stage robust to errors of the first. Source: nnU-Net's cascade (Isensee et al. 2021, supplement).
Labels are dilated, eroded, opened or closed, and connected components are removed, one label at a time. The structuring
element here is a box instead of a ball, so that a device computes it by sliding maxima.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from scanseg.specs import CascadeSpec

_CHANGES = ("grow", "shrink", "open", "close")


def perturb_labels(
    channels: Float[Tensor, "value z y x"], spec: CascadeSpec, *, rng: np.random.Generator
) -> Float[Tensor, "value z y x"]:
    """Return randomly changed labels of a patch.

    Args:
        channels: One channel of zeros and ones per label.
        spec: Probabilities and sizes of the changes.
        rng: Source of randomness.
    """
    changed = channels.clone()
    for value in rng.permutation(len(channels)):
        chance, change, radius = (
            rng.random(),
            rng.choice(_CHANGES),
            int(rng.integers(1, spec.change_radius + 1)),
        )
        if chance < spec.change_probability:
            before = changed[value].clone()
            after = _apply(before, change, radius)
            changed = changed * (1 - (after - before).clamp(min=0))
            changed[value] = after
    if rng.random() < spec.drop_probability:
        value = int(rng.integers(len(channels)))
        changed[value] = _remove_component(changed[value], spec.largest_dropped, rng)
    return changed


def _apply(mask: Float[Tensor, "z y x"], change: str, radius: int) -> Float[Tensor, "z y x"]:
    """Dilate (`grow`), erode (`shrink`), open or close a mask."""
    match change:
        case "grow":
            return _grow(mask, radius)
        case "shrink":
            return 1 - _grow(1 - mask, radius)
        case "open":
            return _grow(1 - _grow(1 - mask, radius), radius)
        case _:
            return 1 - _grow(1 - _grow(mask, radius), radius)


def _grow(mask: Float[Tensor, "z y x"], radius: int) -> Float[Tensor, "z y x"]:
    """Dilate a mask by a box, one axis after the other.

    Args:
        mask: Zeros and ones.
        radius: Voxels from the centre of the box to its faces.
    """
    grown = mask[None, None]
    for axis in range(3):
        size, margin = [1, 1, 1], [0, 0, 0]
        size[axis], margin[axis] = 2 * radius + 1, radius
        grown = F.max_pool3d(grown, size, stride=1, padding=margin)
    return grown[0, 0]


def _remove_component(
    mask: Float[Tensor, "z y x"], largest: float, rng: np.random.Generator
) -> Float[Tensor, "z y x"]:
    """Remove one random small component from a mask.

    Args:
        mask: Zeros and ones.
        largest: Largest size of a removed component as a fraction of the patch.
        rng: Source of randomness.
    """
    parts, _ = ndimage.label(mask.cpu().numpy() > 0)
    sizes = np.bincount(parts.ravel())[1:]
    small = np.flatnonzero(sizes <= largest * mask.numel()) + 1
    if not len(small):
        return mask
    chosen = parts == rng.choice(small)
    return mask * torch.from_numpy(~chosen).to(mask)
