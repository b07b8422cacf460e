"""Sizes of surface elements (surfels) of masks between neighbouring voxels.

DeepMind's surface Dice weights every point of a surface by the area of its surfel (in 2D its length). A surfel is the
marching-cubes surface inside the cube whose corners are the centres of 2x2x2 (2x2) neighbouring voxels. It depends only
on which of these voxels are in the mask. That pattern is a *code*: corner (dz, dy, dx) is bit
`4 (1 - dz) + 2 (1 - dy) + (1 - dx)`.

Source: Nikolov et al. 2018, arXiv:1809.04430, and the table of its published code. The derivation below gives the same
values for all 256 codes and any spacing:

- The surface passes through the midpoints of the cube's edges between an inner and an outer corner.
- A code and its complement have the same surface. If a face of the cube has two inner and two outer corners on its
  diagonals, the corners that are fewer in the cube are cut off from each other.
- A polygon that is not planar is divided into the triangles of largest total area (at spacing 1).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, UInt8

from scanseg.evaluation.points import Points, padded_slabs

Corner = tuple[int, int, int]
Edge = frozenset[Corner]
Triangle = tuple[Edge, Edge, Edge]

CORNERS: tuple[Corner, ...] = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
"""Corners of the cube. Corner i is bit `7 - i` of a code."""


def surfel_codes(padded: Bool[np.ndarray, "*spatial_plus_two"]) -> UInt8[np.ndarray, "*spatial_plus_one"]:
    """Return the code of every 2x2x2 (2x2) neighbourhood of a mask.

    Args:
        padded: Mask (z, y, x) or (y, x), padded by one voxel. So a mask that touches the border has a closed surface.

    Returns:
        Codes, one more than voxels of the mask along each axis. Entry i along an axis is the neighbourhood of voxels
        i - 1 and i of the mask. 0 and the highest code (255 in 3D, 15 in 2D) are no surface.
    """
    codes = padded.view(np.uint8)
    bits = 1
    for axis in range(padded.ndim - 1, -1, -1):
        parts = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis((parts[:-1] << np.uint8(bits)) | parts[1:], 0, axis)
        bits *= 2
    return codes


def find_surfels(mask: Bool[np.ndarray, "*spatial"]) -> tuple[Points, UInt8[np.ndarray, " point"]]:
    """Find the surfels of a mask.

    Args:
        mask: Mask (z, y, x) or (y, x) with at least one voxel.

    Returns:
        The surfels on the grid of the neighbourhoods, and their codes. See `surfel_codes`.
    """
    shape, last = tuple(size + 1 for size in mask.shape), 2 ** (2**mask.ndim) - 1
    positions, found = [], []
    for slab in padded_slabs(mask, overlap=1):
        codes = surfel_codes(slab.mask)
        places = np.flatnonzero((codes != 0) & (codes != last))
        positions.append(slab.positions(places, within=codes.shape, shape=shape))
        found.append(codes.reshape(-1)[places])
    return Points(np.concatenate(positions), shape), np.concatenate(found)


def surfel_sizes(spacing: Sequence[float]) -> Float[np.ndarray, " code"]:
    """Return the size of the surfel of every code.

    Args:
        spacing: Millimetres per voxel along z, y, x, or y, x.

    Returns:
        Areas in mm^2 of 256 codes for three axes, lengths in mm of 16 codes for two.
    """
    return _lengths(*spacing) if len(spacing) == 2 else _areas(*spacing)


def _lengths(spacing_y: float, spacing_x: float) -> Float[np.ndarray, " code"]:
    """Return the contour lengths of all codes in 2D.

    A diagonal cuts off a corner that differs from its neighbours.
    """
    diagonal = 0.5 * float(np.hypot(spacing_y, spacing_x))
    lengths = np.full(16, diagonal)
    lengths[[0b0000, 0b1111]] = 0
    lengths[[0b0011, 0b1100]] = spacing_x
    lengths[[0b0101, 0b1010]] = spacing_y
    lengths[[0b0110, 0b1001]] = 2 * diagonal
    return lengths


def _areas(*spacing: float) -> Float[np.ndarray, " code"]:
    """Return the total triangle area of every code at a spacing."""
    areas = np.zeros(256)
    per_axis = np.prod(spacing) / np.asarray(spacing)
    for code, vectors in enumerate(_area_vectors()):
        areas[code] = np.linalg.norm(vectors * per_axis, axis=1).sum()
    return areas


@cache
def _area_vectors() -> tuple[Float[np.ndarray, "triangle 3"], ...]:
    """Return the area vectors of every code's triangles at spacing 1.

    An area vector is the normal of a triangle, as long as the triangle's area.
    """
    return tuple(
        np.array(
            [_area_vector(triangle) for polygon in _polygons(code) for triangle in _divide(polygon)]
        ).reshape(-1, 3)
        for code in range(256)
    )


def _polygons(code: int) -> list[list[Edge]]:
    """Return the closed polygons between inner and outer corners, as cube edges."""
    inside = {corner for i, corner in enumerate(CORNERS) if code >> (7 - i) & 1}
    few = inside if len(inside) <= 4 else set(CORNERS) - inside
    neighbours: dict[Edge, list[Edge]] = {}
    for face in _faces():
        for start, end in _segments(face, few):
            neighbours.setdefault(start, []).append(end)
            neighbours.setdefault(end, []).append(start)
    polygons = []
    while neighbours:
        edge = next(iter(neighbours))
        polygon: list[Edge] = []
        while edge in neighbours:
            polygon.append(edge)
            following = neighbours.pop(edge)
            edge = next((other for other in following if other in neighbours), edge)
        polygons.append(polygon)
    return polygons


def _faces() -> Iterator[tuple[Corner, ...]]:
    """Yield the cube's six faces as their corners in cyclic order."""
    for axis, side in product(range(3), (0, 1)):
        around = ((0, 0), (0, 1), (1, 1), (1, 0))
        yield tuple((*place[:axis], side, *place[axis:]) for place in around)  # type: ignore[misc]


def _segments(face: tuple[Corner, ...], few: set[Corner]) -> list[tuple[Edge, Edge]]:
    """Return the lines of the surface on a face, between cut edges."""
    edges = [frozenset((face[i], face[(i + 1) % 4])) for i in range(4)]
    cut = [edge for edge in edges if len(edge & few) == 1]
    if len(cut) == 2:
        return [(cut[0], cut[1])]
    return [(edges[i - 1], edges[i]) for i in range(4) if len(cut) == 4 and face[i] in few]


def _divide(polygon: list[Edge]) -> list[Triangle]:
    """Divide a polygon into the triangles of largest total area."""

    def area(triangles: list[Triangle]) -> float:
        return sum(float(np.linalg.norm(_area_vector(triangle))) for triangle in triangles)

    return max(_divisions(polygon), key=area)


def _divisions(polygon: list[Edge]) -> Iterator[list[Triangle]]:
    """Yield every division of a polygon into triangles between its corners."""
    if len(polygon) < 3:
        yield []
    for middle in range(1, len(polygon) - 1):
        triangle = (polygon[0], polygon[middle], polygon[-1])
        for left in _divisions(polygon[: middle + 1]):
            for right in _divisions(polygon[middle:]):
                yield [*left, triangle, *right]


def _area_vector(triangle: Triangle) -> Float[np.ndarray, "3"]:
    """Return the area vector of a triangle between midpoints of edges."""
    first, second, third = (np.mean([*edge], axis=0) for edge in triangle)
    return np.cross(second - first, third - first) / 2
