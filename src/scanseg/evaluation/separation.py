"""Separation of touching instances whose interiors are joined by a narrow neck."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int32
from scipy import ndimage

_SMOOTHING = 1.0
"""Standard deviation in voxels of the Gaussian that smooths distances. Rough outlines have many small maxima."""
_LEVELS = np.linspace(0, 0.95, 20)
"""Quantiles of the distances at which a part is cut."""


def split_at_necks(numbers: Int32[np.ndarray, "*spatial"], *, neck: float) -> Int32[np.ndarray, "*spatial"]:
    """Split instances at narrow necks.

    The half width at a voxel is its distance to the nearest voxel outside. An instance is split where the half width
    falls below a fraction of its maximum on both sides. Voxels of a neck join the nearest part. The edge of the image
    is not outside.

    Args:
        numbers: Instance map (z, y, x) or (y, x). Instances do not touch.
        neck: Largest half width of a neck, as a fraction of the largest half width of the narrower part.

    Returns:
        Instance map with consecutive numbers from 1.
    """
    inside = np.pad(numbers > 0, 1, mode="edge")
    widths = ndimage.distance_transform_edt(inside)[(slice(1, -1),) * numbers.ndim]
    widths = ndimage.gaussian_filter(widths, _SMOOTHING)
    split, count = np.zeros_like(numbers), 0
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        part = numbers[box] == number
        cores = np.zeros(part.shape, np.int32)
        for core in _find_cores(part, np.where(part, widths[box], 0.0), neck):
            count += 1
            cores[core] = count
        nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
        split[box][part] = cores[tuple(nearest)][part]
    return split


def _find_cores(
    part: Bool[np.ndarray, "*box"], widths: Float[np.ndarray, "*box"], neck: float
) -> Iterator[Bool[np.ndarray, "*box"]]:
    """Cut a part at its necks, and yield the remaining parts.

    Args:
        part: The voxels of the part.
        widths: Half width at each voxel.
        neck: Fraction as in `split_at_necks`.
    """
    open_parts = [part]
    while open_parts:
        current = open_parts.pop()
        pieces = _cut(current, widths, neck)
        if pieces:
            open_parts += pieces
        else:
            yield current


def _cut(
    part: Bool[np.ndarray, "*box"], widths: Float[np.ndarray, "*box"], neck: float
) -> list[Bool[np.ndarray, "*box"]]:
    """Cut a part at its first neck. Empty: it has no neck."""
    for level in np.unique(np.quantile(widths[part], _LEVELS)):
        pieces, count = ndimage.label(part & (widths > level), structure=np.ones((3,) * part.ndim))
        if count < 2:
            continue
        largest = ndimage.maximum(widths, pieces, range(1, count + 1))
        wide = [number for number, width in enumerate(largest, start=1) if level < neck * width]
        if len(wide) > 1:
            return [pieces == number for number in wide]
    return []
