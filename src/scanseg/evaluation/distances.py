"""Distances from the points of one surface to another surface."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

VOXELS_PER_POINT = 20
"""Voxels per point below which a distance transform of the whole grid is faster than a k-d tree."""


def nearest_distances(
    points: Bool[np.ndarray, "*spatial"], others: Bool[np.ndarray, "*spatial"], *, spacing: Sequence[float]
) -> Float[np.ndarray, " point"]:
    """Return the distance of each point to the nearest other point.

    Distances are computed from integer voxel offsets, so equal offsets give equal distances at every position.

    Args:
        points: Mask of the points, of shape `spatial`.
        others: Mask of the other points, of the same shape. At least one voxel is set.
        spacing: Millimetres per voxel along the axes.

    Returns:
        Distances in mm, of the points in array order.
    """
    distances = np.zeros(np.count_nonzero(points))
    away = ~others[points]
    num_points = np.count_nonzero(away) + np.count_nonzero(others)
    if not away.any():
        return distances
    if num_points * VOXELS_PER_POINT > points.size:
        return _by_transform(points, others, spacing=spacing)
    distances[away] = _by_tree(points & ~others, others, spacing=spacing)
    return distances


def _by_transform(
    points: Bool[np.ndarray, "*spatial"], others: Bool[np.ndarray, "*spatial"], *, spacing: Sequence[float]
) -> Float[np.ndarray, " point"]:
    """Compute the distances of all voxels of the grid.

    The time depends only on the size of the grid.
    """
    return ndimage.distance_transform_edt(~others, sampling=spacing)[points]


def _by_tree(
    points: Bool[np.ndarray, "*spatial"], others: Bool[np.ndarray, "*spatial"], *, spacing: Sequence[float]
) -> Float[np.ndarray, " point"]:
    """Compute the distances of the points only.

    This is faster than a transform for few points in a large grid.
    """
    scale = np.asarray(spacing, dtype=np.float64)
    from_voxels, to_voxels = np.argwhere(points), np.argwhere(others)
    tree = KDTree(to_voxels * scale, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(from_voxels * scale)[1]
    return np.sqrt((((from_voxels - to_voxels[nearest]) * scale) ** 2).sum(axis=1))
