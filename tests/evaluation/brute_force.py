"""Slow scores, voxel by voxel from their definitions and without the library."""

import itertools

import numpy as np


def border_voxels(mask):
    """Return the voxels of a mask with a neighbour along an axis outside it."""
    inside = {tuple(voxel) for voxel in np.argwhere(mask)}
    steps = [
        tuple(sign if axis == a else 0 for a in range(mask.ndim))
        for axis in range(mask.ndim)
        for sign in (-1, 1)
    ]
    return [
        voxel
        for voxel in sorted(inside)
        if any(tuple(v + s for v, s in zip(voxel, step, strict=True)) not in inside for step in steps)
    ]


def nearest(points, others, spacing):
    """Return the distance of every point to the nearest other point, from all pairs."""
    steps = np.array([*points])[:, None, :] - np.array([*others])[None, :, :]
    return np.sqrt(((steps * np.array(spacing)) ** 2).sum(axis=2)).min(axis=1).tolist()


def hausdorff_95(prediction, reference, spacing):
    a, b = border_voxels(prediction), border_voxels(reference)
    pooled = sorted(nearest(a, b, spacing) + nearest(b, a, spacing))
    place = 0.95 * (len(pooled) - 1)
    low = int(place)
    high = min(low + 1, len(pooled) - 1)
    return pooled[low] + (place - low) * (pooled[high] - pooled[low])


def neighbourhoods(mask):
    """Return, for every corner between voxels, the neighbouring voxels (as offsets 0, 1) in the mask."""
    found = {}
    for voxel in np.argwhere(mask):
        for offset in itertools.product((0, 1), repeat=mask.ndim):
            corner = tuple(v + 1 - o for v, o in zip(voxel, offset, strict=True))
            found.setdefault(corner, set()).add(offset)
    return {corner: frozenset(offsets) for corner, offsets in found.items() if len(offsets) < 2**mask.ndim}


def surface_dice(prediction, reference, spacing, tolerance, size):
    """Return the surface Dice, with surfel sizes as a function of the inner offsets."""
    a, b = neighbourhoods(prediction), neighbourhoods(reference)
    near = total = 0.0
    for points, others in ((a, b), (b, a)):
        for offsets, away in zip(points.values(), nearest(points, others, spacing), strict=True):
            weight = size(offsets)
            total += weight
            if away <= tolerance + 1e-9:
                near += weight
    return near / total


def dice(prediction, reference):
    both = sum(1 for p, r in zip(prediction.flat, reference.flat, strict=True) if p and r)
    return 2 * both / (int(prediction.sum()) + int(reference.sum()))
