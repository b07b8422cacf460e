"""Reading of the cases of an own folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from scanseg.converters.label_code import LabelCode, count_keys, count_numbers, read_label_numbers
from scanseg.converters.label_table import LabelKey
from scanseg.converters.pictures import as_8_bits, as_colour
from scanseg.converters.sources import Sample
from scanseg.dataset import FolderCase
from scanseg.errors import InputError
from scanseg.imaging import Image, compare_geometry, read_image
from scanseg.messages import counted, listed

OverlapRule = Literal["refuse", "last"]
"""Treatment of voxels in several structure masks: an error, or the label of the last structure."""


@dataclass(frozen=True)
class OwnFormat:
    """Format of the images of an own folder after the conversion."""

    is_picture: bool
    """Pictures become PNG files of 8 bits, others keep their values in NIfTI files."""
    num_channels: int

    @property
    def file_ending(self) -> str:
        """Ending of the converted files."""
        return ".png" if self.is_picture else ".nii.gz"


@dataclass(frozen=True)
class CaseContent:
    """Labels, and size and spacing if requested, of one case."""

    case: FolderCase
    keys: Mapping[LabelKey | str, int]
    """Voxels of each value, colour or structure."""
    shape: tuple[int, ...] | None = None
    """Shape of the image in array order. `None`: the image was not read."""
    spacing: tuple[float, ...] | None = None
    """Millimetres per voxel of the image in array order. `None`: the image was not read."""
    minimum: float | None = None
    """Lowest intensity. `None`: the image was not read."""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspected:
    """A case to inspect."""

    case: FolderCase
    with_image: bool
    """Read the image too."""
    as_colours: bool
    """Count colours instead of values."""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name


def inspect_case(inspected: Inspected) -> CaseContent:
    """Read the labels of a case, and its image if requested.

    Args:
        inspected: The case.

    Returns:
        The content. Files that cannot be used are faults.
    """
    case = inspected.case
    keys: dict[LabelKey | str, int] = {}
    faults = []
    content = CaseContent(case, keys)
    try:
        if case.label_map is not None:
            keys.update(count_keys(case.label_map, as_colours=inspected.as_colours).items())
        for name, path in case.masks:
            keys[name] = int(np.count_nonzero(_read_mask(path).array))
    except InputError as error:
        faults.append(f"case {case.name}: {error}")
    try:
        if inspected.with_image:
            image = read_image(case.images)
            lowest = float(image.array.min())
            content = replace(content, shape=image.shape, spacing=image.spacing, minimum=lowest)
    except InputError as error:
        faults.append(f"case {case.name}: {error}")
    return replace(content, faults=tuple(faults))


def read_own_case(case: FolderCase, code: LabelCode, form: OwnFormat, overlap: OverlapRule) -> Sample:
    """Read the image and the label map of a case.

    Args:
        case: The case.
        code: Label value of each value, colour or structure.
        form: Format of the images after the conversion.
        overlap: Treatment of voxels in several structure masks.

    Raises:
        InputError: A file cannot be read, or does not fit the others.
    """
    image = read_image(case.images)
    notes: tuple[str, ...] = ()
    label_map = None
    if case.label_map is not None:
        numbers, _ = read_label_numbers(case.label_map, as_colours=code.form == "colours")
        encoded = code.encode(case.label_map, numbers.array)
        label_map = replace(numbers, array=encoded)
    elif case.masks:
        label_map = _merge_masks(case, image, code.names, overlap)
    if form.is_picture:
        image, notes = as_colour(image) if form.num_channels == 3 else as_8_bits(image)
        if any(size != 1 for size in image.spacing):
            notes = (*notes, f"the spacing {image.spacing} mm is left out, as PNG holds none")
        image = _in_pixels(image)
        label_map = None if label_map is None else _in_pixels(label_map)
    return Sample(image, label_map, notes=notes)


def _in_pixels(image: Image) -> Image:
    return replace(image, spacing=(1.0,) * image.num_axes)


def _read_mask(path: Path) -> Image:
    """Read a mask of one structure.

    Raises:
        InputError: The mask has more than one value besides 0.
    """
    image, _ = read_label_numbers(path, as_colours=False)
    numbers, _ = count_numbers(image.array)
    values = numbers[numbers != 0]
    if len(values) > 1:
        found = listed([str(value) for value in values])
        raise InputError(f"{path}: expected one value besides 0 in the mask of a structure, got {found}.")
    return replace(image, array=image.array != 0)


def _merge_masks(case: FolderCase, image: Image, names: Mapping[str, int], overlap: OverlapRule) -> Image:
    """Combine structure masks in the order of their label values.

    Raises:
        InputError: Masks overlap and `overlap` is `refuse`, or a mask has another grid than the image.
    """
    merged = np.zeros((1, *image.shape), np.uint8)
    faults = []
    by_value = {value: name for name, value in names.items()}
    ordered = sorted((names[name], name, path) for name, path in case.masks if name in names)
    for value, name, path in ordered:
        mask = _read_mask(path)
        differences = compare_geometry(image, mask)
        if differences:
            faults.append(f"image and mask of {name} differ in {', '.join(differences)}")
            continue
        common = merged[mask.array]
        if overlap == "refuse" and common.any():
            faults += _overlap_faults(name, common, by_value)
        merged[mask.array] = value
    if faults:
        raise InputError(f"{listed(faults)}.")
    return replace(image, array=merged)


def _overlap_faults(name: str, common: np.ndarray, by_value: Mapping[int, str]) -> Sequence[str]:
    """Return a fault for each structure that a mask overlaps."""
    values, counts = np.unique(common[common > 0], return_counts=True)
    return [
        f"masks of {by_value[int(value)]} and {name} overlap in {counted(int(count), 'voxel')}. Correct them, or let "
        "the last label win by --overlap last"
        for value, count in zip(values, counts, strict=True)
    ]
