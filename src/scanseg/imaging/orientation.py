"""Orientation of volumes, as axis codes such as `RAS`.

nibabel and MONAI use the same codes: for each voxel axis x, y, z the side of the body towards which its index grows,
R or L, A or P, S or I. An image whose axes are oblique gets the codes of the nearest axes.
"""

from itertools import permutations

import numpy as np

from scanseg.imaging.image import Image

Triple = tuple[int, int, int]
Flips = tuple[bool, bool, bool]

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_LPS = (("L", "R"), ("P", "A"), ("S", "I"))
"""Sides towards which the world axes of ITK grow, and the opposite sides."""


def axis_codes(image: Image) -> str | None:
    """Return the axis codes of a volume, such as `RAS`.

    Each voxel axis belongs to another axis of the body. Among all assignments, the one with the largest sum of absolute
    direction cosines is chosen, so that axes at 45 degrees have codes too.

    Args:
        image: The image.

    Returns:
        The codes, or `None` for an image of two axes, which has no orientation in the body.
    """
    if image.num_axes == 2:
        return None
    cosines = np.reshape(image.direction, (3, 3))  # column: voxel axis x, y, z; row: world axis L, P, S
    best = max(
        permutations(range(3)), key=lambda worlds: sum(abs(cosines[w, v]) for v, w in enumerate(worlds))
    )
    return "".join(
        _LPS[world][0] if cosines[world, voxel] >= 0 else _LPS[world][1] for voxel, world in enumerate(best)
    )


def find_reorientation(source: str, target: str) -> tuple[Triple, Flips]:
    """Return the permutation and the flips that change an orientation.

    Args:
        source: Axis codes (x, y, z) of the array.
        target: Wanted axis codes.

    Returns:
        The old axis of each new axis, and whether each new axis is reversed, both in array order z, y, x.
    """
    here, wanted = source[::-1], target[::-1]
    order = tuple(
        next(axis for axis, letter in enumerate(here) if letter in (code, _OPPOSITE[code])) for code in wanted
    )
    flips = tuple(here[axis] != code for axis, code in zip(order, wanted, strict=True))
    return (order[0], order[1], order[2]), (flips[0], flips[1], flips[2])


def direction_of(codes: str) -> tuple[float, ...]:
    """Return the direction cosines of axis codes.

    They are in ITK's order x, y, z, row by row.

    Args:
        codes: Axis codes of x, y, z.
    """
    cosines = np.zeros((3, 3))
    for voxel, letter in enumerate(codes):
        world = next(number for number, sides in enumerate(_LPS) if letter in sides)
        cosines[world, voxel] = 1.0 if letter == _LPS[world][0] else -1.0
    return tuple(float(value) for value in cosines.ravel())


def left_right_axis(codes: str | None) -> int:
    """Return the array axis that runs from left to right.

    0, 1 and 2 are z, y and x.

    Args:
        codes: Axis codes of x, y, z. `None`: unknown, and x is assumed.
    """
    if codes is None:
        return 2
    return next(axis for axis, letter in enumerate(codes[::-1]) if letter in "RL")
