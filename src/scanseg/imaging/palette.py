"""Colours of labels, for figures and for pictures of label maps."""

from functools import cache

LABEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours of labels 1, 2 ... for colour-blind readers. Source: Okabe and Ito 2008."""

_SHADES = (0.0, 0.45, -0.4, 0.7, -0.55)
"""Share of white (positive) or black (negative) in each further round of the colours."""


@cache
def make_palette() -> bytes:
    """Return red, green and blue of the label values 0 to 255.

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
