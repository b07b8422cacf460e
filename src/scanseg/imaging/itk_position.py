"""Check the numbers and units of positions in MetaImage and NRRD headers.

SimpleITK reads `0,5` as 0 and NaN as 1 or 0, and ignores units.
"""

import math
import re

from scanseg.errors import InputError
from scanseg.imaging.itk_header import ItkFields
from scanseg.messages import shortened

_NUMBERS = {
    "ElementSpacing": 1,
    "ElementSize": 1,
    **dict.fromkeys(("Offset", "Position", "Origin"), 1),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 2),
}
"""Fields of MetaImage with as many numbers as axes, or the square of it: the exponent."""
_SPATIAL_KINDS = ("domain", "space")
"""Kinds of NRRD axes along which a position grows."""
_MOST_SPATIAL = 3
_VECTOR = re.compile(r"\([^()]*\)|\S+")
_MILLIMETRES = ("", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "?", "???")
"""Names of the millimetre, and of an unknown unit."""


def check_position(fields: ItkFields) -> list[str]:
    """Check spacings, origin and directions of a header.

    Args:
        fields: Fields of the header.

    Returns:
        A warning for a missing spacing and for a unit other than mm.

    Raises:
        InputError: A number is not finite, or has a decimal comma, or the count of numbers is wrong.
    """
    units = _check_nrrd(fields) if fields.is_nrrd else _check_metaimage(fields)
    wrong = sorted({unit for unit in units if unit.lower() not in _MILLIMETRES})
    warnings = [
        f"{fields.path}: expected millimetres as the unit of positions, got {shortened(unit)}. The numbers of the "
        "header are used as millimetres."
        for unit in wrong
    ]
    stated = ("spacings", "space directions") if fields.is_nrrd else ("ElementSpacing", "ElementSize")
    if not any(name in fields.values for name in stated):
        warnings.append(
            f"{fields.path}: expected a spacing in the header, got none. Each voxel counts as 1 mm."
        )
    return warnings


def _check_metaimage(fields: ItkFields) -> list[str]:
    """Check the numbers of a MetaImage header, and return its units."""
    for name, exponent in _NUMBERS.items():
        if name in fields.values:
            words = fields.values[name].split()
            _check_numbers(fields, name, words, expected=fields.num_axes**exponent)
    return [fields.values.get("DistanceUnits", "")]


def _check_nrrd(fields: ItkFields) -> list[str]:
    """Check the numbers of an NRRD header, and return its units."""
    spatial = _spatial_axes(fields)
    values = fields.values
    if "spacings" in values:
        words = values["spacings"].split()
        numbers = [word for axis, word in enumerate(words) if axis in spatial or word.lower() != "nan"]
        _check_numbers(fields, "spacings", numbers, expected=fields.num_axes - (len(words) - len(numbers)))
    for name in ("space directions", "space origin"):
        for axis, vector in enumerate(_VECTOR.findall(values.get(name, ""))):
            is_used = name == "space origin" or axis in spatial
            if vector.startswith("(") and (is_used or "nan" not in vector.lower()):
                _check_numbers(fields, name, vector[1:-1].split(","), expected=_space_dimension(fields))
    units = re.findall(r'"([^"]*)"', values.get("units", ""))
    units = [unit for axis, unit in enumerate(units) if axis in spatial]
    return [*units, *re.findall(r'"([^"]*)"', values.get("space units", ""))]


def _spatial_axes(fields: ItkFields) -> set[int]:
    """Return the numbers of the spatial axes of an NRRD file."""
    kinds = fields.values.get("kinds", "").lower().split()
    if len(kinds) != fields.num_axes or any("?" in kind for kind in kinds):
        return set(range(min(fields.num_axes, _MOST_SPATIAL)))
    return {axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS}


def _space_dimension(fields: ItkFields) -> int:
    """Return the length of the vectors of an NRRD header."""
    stated = fields.values.get("space dimension", "")
    if stated.isdecimal():
        return int(stated)
    space = fields.values.get("space", "").lower()
    return 4 if "time" in space or (len(space) == 4 and space.endswith("t")) else 3


def _check_numbers(fields: ItkFields, name: str, words: list[str], *, expected: int) -> None:
    """Check that words are finite numbers.

    Raises:
        InputError: A word is no finite number, or their count is another one.
    """
    if len(words) == expected and all(map(_is_finite, words)):
        return
    found = shortened(repr(fields.values[name]))
    raise InputError(
        f"{fields.path}: expected finite numbers with decimal points in {name}, {expected} together, got {found}. Fix "
        "the header."
    )


def _is_finite(word: str) -> bool:
    """Return whether a word is a finite number."""
    try:
        return "_" not in word and math.isfinite(float(word))
    except ValueError:
        return False
