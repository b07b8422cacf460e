"""Surface elements of masks: area (length in 2D) of the surface between 2x2x2 (2x2) neighbouring voxels.

DeepMind's surface Dice weighs every point of a surface by the area of its surfel: the marching-cubes surface inside
the cube whose corners are the centres of 2x2x2 neighbouring voxels, which depends only on which of them are in the
mask. That pattern is a *code*: corner (dz, dy, dx) is bit `4 (1 - dz) + 2 (1 - dy) + (1 - dx)`.

Source: Nikolov et al. 2018, arXiv:1809.04430, and the table of its published code, which the derivation below equals
for all 256 codes and any spacing:
- the surface passes through the midpoints of the cube's edges between an inner and an outer corner;
- a code and its complement have the same surface; where a face of the cube has two inner and two outer corners on
  its diagonals, the corners that are fewer in the cube are cut off from each other;
- a polygon that is not planar is divided into the triangles of largest total area (at spacing 1).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, UInt8

Corner = tuple[int, int, int]
Edge = frozenset[Corner]
Triangle = tuple[Edge, Edge, Edge]

CORNERS: tuple[Corner, ...] = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
"""Corners of the cube; corner i is bit `7 - i` of a code."""


def surfel_codes(mask: Bool[np.ndarray, "*spatial"]) -> UInt8[np.ndarray, "*spatial_plus_one"]:
    """Return the code of every 2x2x2 (2x2) neighbourhood of a mask.

    What lies beyond the array is outside the mask, so that a mask which touches the border is closed there.

    Args:
        mask: Mask of two or three axes.

    Returns:
        Codes; entry i along an axis is the neighbourhood of voxels i - 1 and i. 0 and the highest code (255 in 3D,
        15 in 2D) are no surface.
    """
    codes = np.pad(mask, 1).astype(np.uint8)
    bits = 1
    for axis in range(mask.ndim - 1, -1, -1):
        before = np.take(codes, range(codes.shape[axis] - 1), axis=axis)
        after = np.take(codes, range(1, codes.shape[axis]), axis=axis)
        codes = (before << np.uint8(bits)) | after
        bits *= 2
    return codes


def surfel_sizes(spacing: Sequence[float]) -> Float[np.ndarray, " code"]:
    """Return the size of the surfel of every code.

    Args:
        spacing: Millimetres per voxel along z, y, x, or y, x.

    Returns:
        Areas in mm^2 of 256 codes for three axes, lengths in mm of 16 codes for two.
    """
    return _lengths(*spacing) if len(spacing) == 2 else _areas(*spacing)


def _lengths(spacing_y: float, spacing_x: float) -> Float[np.ndarray, " code"]:
    """Return contour lengths: a corner that differs from its neighbours is cut off by a diagonal."""
    diagonal = 0.5 * float(np.hypot(spacing_y, spacing_x))
    lengths = np.full(16, diagonal)
    lengths[[0b0000, 0b1111]] = 0
    lengths[[0b0011, 0b1100]] = spacing_x
    lengths[[0b0101, 0b1010]] = spacing_y
    lengths[[0b0110, 0b1001]] = 2 * diagonal
    return lengths


def _areas(*spacing: float) -> Float[np.ndarray, " code"]:
    """Return the areas of the triangles of every code at a spacing."""
    areas = np.zeros(256)
    per_axis = np.prod(spacing) / np.asarray(spacing)
    for code, vectors in enumerate(_area_vectors()):
        areas[code] = np.linalg.norm(vectors * per_axis, axis=1).sum()
    return areas


@cache
def _area_vectors() -> tuple[Float[np.ndarray, "triangle 3"], ...]:
    """Return the normals of every code's triangles at spacing 1, each as long as the triangle's area."""
    return tuple(
        np.array(
            [_area_vector(triangle) for polygon in _polygons(code) for triangle in _divide(polygon)]
        ).reshape(-1, 3)
        for code in range(256)
    )


def _polygons(code: int) -> list[list[Edge]]:
    """Return the closed polygons, as edges of the cube, that part the inner from the outer corners."""
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
    """Return the six faces of the cube, each as its four corners in a round."""
    for axis, side in product(range(3), (0, 1)):
        around = ((0, 0), (0, 1), (1, 1), (1, 0))
        yield tuple((*place[:axis], side, *place[axis:]) for place in around)  # type: ignore[misc]


def _segments(face: tuple[Corner, ...], few: set[Corner]) -> list[tuple[Edge, Edge]]:
    """Return the lines in which the surface meets a face: from cut edge to cut edge."""
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
    """Return every division of a polygon into triangles between its corners."""
    if len(polygon) < 3:
        yield []
    for middle in range(1, len(polygon) - 1):
        triangle = (polygon[0], polygon[middle], polygon[-1])
        for left in _divisions(polygon[: middle + 1]):
            for right in _divisions(polygon[middle:]):
                yield [*left, triangle, *right]


def _area_vector(triangle: Triangle) -> Float[np.ndarray, "3"]:
    """Return the normal of a triangle between midpoints of edges, as long as its area."""
    first, second, third = (np.mean([*edge], axis=0) for edge in triangle)
    return np.cross(second - first, third - first) / 2
