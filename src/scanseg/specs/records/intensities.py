"""Ranges of intensities, and the full ranges of types."""

from collections.abc import Sequence
from typing import Literal, Self

from scanseg.specs.base import Document

HIGHEST_OF_8_BITS = 255.0
"""Highest intensity of 8 bits."""
_HIGHEST_BY_DEPTH = (HIGHEST_OF_8_BITS, 1023.0, 4095.0, 16383.0, 65535.0)
"""Highest intensities of 8, 10, 12, 14 and 16 bits."""
_LEAST_OF_8_BITS = 16.0
"""Maximum from which floats count as intensities of 8 bits. Below it they have a scale of their own."""
_ROUNDING = 1e-3
"""Part by which floats may exceed 1, after interpolation or rounding."""

IntensityScale = Literal["0 to 1", "8 bits", "more than 8 bits"]
"""Scale of an image by its type and its values."""


class IntensityRange(Document):
    """Type and range of intensities."""

    dtype: str
    """NumPy's name of the type, such as `uint8`. Several types of a data set are joined by ` and `."""
    minimum: float
    """Lowest intensity."""
    maximum: float
    """Highest intensity."""

    @classmethod
    def join(cls, ranges: Sequence[Self]) -> Self:
        """Return the range of several channels or cases.

        Args:
            ranges: At least one range.
        """
        return cls(
            dtype=" and ".join(sorted({each.dtype for each in ranges})),
            minimum=min(each.minimum for each in ranges),
            maximum=max(each.maximum for each in ranges),
        )

    @property
    def is_float(self) -> bool:
        """True if an image holds floats."""
        return "float" in self.dtype

    @property
    def full(self) -> tuple[float, float]:
        """Lowest and highest intensity that the type can hold.

        The bit depth of wide types follows from the values.

        8-bit types: 0 to 255. Other integers: 0 to the highest number of the 8, 10, 12, 14 or 16 bits that hold the
        maximum. Floats from 0 to 1: 0 to 1. Other floats: as integers, from a maximum of 16. All others, and images
        with negative values: the values themselves.
        """
        if self.dtype in ("uint8", "bool"):
            return 0.0, HIGHEST_OF_8_BITS
        if self.is_float and max(self.maximum, -self.minimum) <= 1 + _ROUNDING:
            return (0.0 if self.minimum >= 0 else -1.0), 1.0
        if self.minimum < 0 or (self.is_float and self.maximum < _LEAST_OF_8_BITS):
            return min(0.0, self.minimum), max(self.maximum, self.minimum + 1)
        return 0.0, next((highest for highest in _HIGHEST_BY_DEPTH if self.maximum <= highest), self.maximum)

    @property
    def scale(self) -> IntensityScale | None:
        """Scale of the intensities.

        `None`: the range fits several scales, as for an empty image.
        """
        if self.is_float and self.maximum <= 1 + _ROUNDING:
            return "0 to 1" if self.maximum > 0 else None
        if self.maximum > HIGHEST_OF_8_BITS:
            return "more than 8 bits"
        return "8 bits" if self.dtype == "uint8" or self.is_float else None

    def describe(self) -> str:
        """Return range and type as text, such as `0 to 4000 (uint16)`."""
        return f"{self.minimum:g} to {self.maximum:g} ({self.dtype})"


def is_colour(channel_name: str) -> bool:
    """Return whether a channel belongs to a colour image.

    Args:
        channel_name: Name of the channel in any case.
    """
    return channel_name.casefold() in ("r", "g", "b", "red", "green", "blue", "rgb_to_0_1")
