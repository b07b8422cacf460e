"""Distances from the points of one surface to the nearest point of another, both on one grid."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

VOXELS_PER_POINT = 20
"""With fewer voxels than this for each point, a distance transform of the whole grid is quicker than a tree."""


def nearest_distances(
    points: Bool[np.ndarray, "*spatial"], others: Bool[np.ndarray, "*spatial"], *, spacing: Sequence[float]
) -> Float[np.ndarray, " point"]:
    """Return the distance of each point from the nearest of the others.

    Distances come from whole voxels, so that equal offsets give equal numbers wherever they lie.

    Args:
        points: Where the points are; in array order they are the entries of the result.
        others: Where the other points are; at least one.
        spacing: Millimetres per voxel along the axes.

    Returns:
        Distances in mm.
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
    """Measure every voxel of the grid; the time depends on its size alone."""
    return ndimage.distance_transform_edt(~others, sampling=spacing)[points]


def _by_tree(
    points: Bool[np.ndarray, "*spatial"], others: Bool[np.ndarray, "*spatial"], *, spacing: Sequence[float]
) -> Float[np.ndarray, " point"]:
    """Measure the points alone; quick where they are few in a large grid."""
    scale = np.asarray(spacing, dtype=np.float64)
    from_voxels, to_voxels = np.argwhere(points), np.argwhere(others)
    tree = KDTree(to_voxels * scale, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(from_voxels * scale)[1]
    return np.sqrt((((from_voxels - to_voxels[nearest]) * scale) ** 2).sum(axis=1))
