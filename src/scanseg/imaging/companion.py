"""Spacings in JSON files beside TIFF files, as in nnU-Net."""

import json
import re
import sys
from pathlib import Path

from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.files import write_text
from scanseg.messages import counted, shortened


def companion_path(path: Path, *, is_label_map: bool) -> Path:
    """Return the path of the JSON file with a TIFF file's spacing.

    It is `CASE.json` for the image `CASE_0000.tif` and for the label map `CASE.tif`. Label maps have no channel number,
    so the four digits of `img_0001.tif` belong to the case.

    Args:
        path: The TIFF file.
        is_label_map: The file is a label map or an instance map.
    """
    stem = path.stem if is_label_map else re.sub(r"_\d{4}$", "", path.stem)
    return path.with_name(f"{stem}.json")


def read_companion_spacing(path: Path, num_axes: int, *, is_label_map: bool) -> tuple[float, ...] | None:
    """Read the spacing from the JSON file beside a TIFF file.

    Args:
        path: The TIFF file.
        num_axes: Number of its spatial axes.
        is_label_map: The file is a label map or an instance map.

    Returns:
        Millimetres per voxel along each axis. `None`: the JSON file is missing.

    Raises:
        InputError: The JSON file holds no spacing of these axes.
    """
    companion = companion_path(path, is_label_map=is_label_map)
    if not companion.is_file():
        return None
    content = read_json(companion)
    values = content.get("spacing") if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(_is_length(value) for value in values):
        found = shortened(json.dumps(content))
        raise InputError(f'{companion}: expected {{"spacing": [z, y, x]}} in mm, above 0, got {found}.')
    spacing = tuple(float(value) for value in values)
    if len(spacing) < num_axes:
        raise InputError(
            f"{companion}: expected a spacing of {num_axes} axes as in {path.name}, got "
            f"{counted(len(spacing), 'axis', 'axes')}: {spacing}."
        )
    return spacing[-num_axes:]


def write_companion_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    """Write the spacing of a label map beside it.

    A spacing of 1 needs no file. An existing file with another spacing is then rewritten.

    Args:
        path: The TIFF file of the label map.
        spacing: Millimetres per voxel along each axis.

    Raises:
        InputError: The file cannot be written.
    """
    companion = companion_path(path, is_label_map=True)
    if any(value != 1 for value in spacing) or _holds_spacing(companion):
        write_text(companion, json.dumps({"spacing": spacing}) + "\n")


def _holds_spacing(path: Path) -> bool:
    """Return whether a file exists and states a spacing."""
    if not path.is_file():
        return False
    try:
        content = read_json(path)
    except InputError:
        return False
    return isinstance(content, dict) and "spacing" in content


def _is_length(value: object) -> bool:
    """Return whether a JSON value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < sys.float_info.max
