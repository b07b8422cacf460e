"""Colours of labels and instances, for figures and pictures."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Integer, UInt8

LABEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours of labels 1, 2 ... for colour-blind readers. Source: Okabe and Ito 2008."""

_SHADES = (0.0, 0.45, -0.4, 0.7, -0.55)
"""Share of white (positive) or black (negative) in each further round of the colours."""
_NUM_COLOURS = len(LABEL_COLOURS) * len(_SHADES)
"""Number of different colours."""


def make_palette(colours: Mapping[int, tuple[int, int, int]] | None = None) -> bytes:
    """Return red, green and blue of the label values 0 to 255.

    Args:
        colours: Red, green and blue of label values. Other values have the colours of the fixed palette.
    """
    palette = bytearray(_fixed_palette())
    for value, colour in (colours or {}).items():
        palette[3 * value : 3 * value + 3] = bytes(colour)
    return bytes(palette)


def palette_colours(
    colours: Mapping[int, tuple[int, int, int]] | None = None,
) -> UInt8[np.ndarray, "256 3"]:
    """Return the colours of all label values as an array.

    Args:
        colours: Red, green and blue of label values. Other values have the colours of the fixed palette.
    """
    return np.frombuffer(make_palette(colours), np.uint8).reshape(256, 3)


@cache
def _fixed_palette() -> bytes:
    """Return the fixed palette.

    The background is black. After the last colour, lighter and darker rounds of the colours follow. From label 36 on,
    they repeat.
    """
    colours = [(0, 0, 0)]
    for number in range(255):
        colour = LABEL_COLOURS[number % len(LABEL_COLOURS)]
        shade = _SHADES[number // len(LABEL_COLOURS) % len(_SHADES)]
        target = 255 if shade > 0 else 0
        parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
        red, green, blue = (round(part + abs(shade) * (target - part)) for part in parts)
        colours.append((red, green, blue))
    return bytes(part for colour in colours for part in colour)


def colour_instances(instances: Integer[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x"]:
    """Choose colours of the palette so that instances that touch differ.

    Instances touch if two of their pixels share an edge or a corner.

    Args:
        instances: Instance numbers, 0 elsewhere, of shape (y, x).

    Returns:
        Index into the palette of each pixel, and 0 where no instance is.
    """
    values, numbers = np.unique(np.append(instances.ravel(), 0), return_inverse=True)
    zero = int(np.searchsorted(values, 0))
    numbers = numbers[:-1].reshape(instances.shape)
    touching = _find_touching(numbers, zero)
    chosen = np.zeros(len(values), np.uint8)
    most_first = sorted(range(len(values)), key=lambda number: -len(touching[number]))
    for number in most_first:
        taken = {int(chosen[other]) for other in touching[number]}
        start = number % len(LABEL_COLOURS)
        order = (*range(start, len(LABEL_COLOURS)), *range(start), *range(len(LABEL_COLOURS), _NUM_COLOURS))
        chosen[number] = 1 + next((colour for colour in order if colour + 1 not in taken), start)
    chosen[zero] = 0
    return chosen[numbers]


def _find_touching(numbers: Integer[np.ndarray, "y x"], zero: int) -> dict[int, set[int]]:
    """Return the instances that touch each instance."""
    pairs = [
        (numbers[:, :-1], numbers[:, 1:]),
        (numbers[:-1], numbers[1:]),
        (numbers[:-1, :-1], numbers[1:, 1:]),
        (numbers[:-1, 1:], numbers[1:, :-1]),
    ]
    count = int(numbers.max()) + 1
    touching: dict[int, set[int]] = defaultdict(set)
    for first, second in pairs:
        border = (first != second) & (first != zero) & (second != zero)
        found = np.unique(first[border].astype(np.int64) * count + second[border])
        for one, other in zip(*(part.tolist() for part in np.divmod(found, count)), strict=True):
            touching[one].add(other)
            touching[other].add(one)
    return touching
