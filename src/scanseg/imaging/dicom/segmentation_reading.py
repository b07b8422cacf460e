"""Read DICOM Segmentations as label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from scanseg.errors import InputError
from scanseg.imaging.dicom.objects import explained
from scanseg.imaging.dicom.recognition import has_dicom_ending
from scanseg.imaging.dicom.segmentation import can_write_segmentations
from scanseg.imaging.image import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE, SPACING_TOLERANCE, Image
from scanseg.messages import listed

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes: Segmentation Storage and Label Map Segmentation Storage."""
_HIGHEST_VALUE = 255
_MOST_OVERLAPPING = 64
"""Most segments of a file whose segments overlap: one bit for each."""


def is_segmentation_file(path: Path) -> bool:
    """Return whether a file has an ending of DICOM files.

    Args:
        path: The file.
    """
    return path.is_file() and has_dicom_ending(path.name)


def read_segmentation(path: Path, labels: Mapping[str, Sequence[int]] | None = None) -> Image:
    """Read a DICOM Segmentation as a label map.

    The map ends at the first and the last slice with a frame, because slices without labels may have none. See
    `place_on_grid`.

    Args:
        path: The file.
        labels: Names of labels or regions, with their values. Segments of these names get these values. `None`, or no
            segment has such a name: the numbers of the segments are the values.

    Returns:
        Label map as uint8 of shape (1, z, y, x), with its geometry.

    Raises:
        InputError: highdicom is missing, or the file is damaged, no segmentation, fractional, not a stack of parallel
            slices, or holds segments that no label map can hold.
    """
    if not can_write_segmentations():
        raise InputError(
            f"{path}: expected the library highdicom to read a DICOM Segmentation, got none. Install it by "
            'pip install "scanseg[dicom]".'
        )
    segmentation = _open(path)
    values = _match_names(path, segmentation, labels)
    with explained(str(path)):
        grid = segmentation.get_volume_geometry()
    if grid is None:
        raise InputError(f"{path}: expected frames on parallel slices at equal distances, got others.")
    affine = np.asarray(grid.affine)
    spacing = tuple(float(size) for size in grid.spacing)
    direction = (affine[:3, :3] / np.asarray(spacing))[:, ::-1]
    image = Image(
        _read_voxels(path, segmentation, values)[np.newaxis],
        spacing=spacing,
        origin=tuple(float(value) for value in affine[:3, 3]),
        direction=tuple(float(value) for value in direction.ravel()),
    )
    if np.linalg.det(direction) > 0:
        return image
    right_handed = replace(image, direction=tuple((direction * [1, 1, -1]).ravel().tolist()))
    return _flip_like(image, right_handed) or image  # slices in the order of a series


def _open(path: Path) -> "Segmentation":
    """Open a segmentation, and check its kind."""
    from highdicom.seg import segread
    from pydicom import dcmread

    with explained(str(path)):
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SegmentationType"])
        found, kind = header.SOPClassUID, header.get("SegmentationType")
    if found not in _CLASSES:
        raise InputError(f"{path}: expected a DICOM Segmentation, got {found.name}. Give a label map.")
    if kind == "FRACTIONAL":
        raise InputError(f"{path}: expected a binary segmentation, got a fractional one. Store it as binary.")
    with explained(str(path)):
        return segread(path)


def _match_names(
    path: Path, segmentation: "Segmentation", labels: Mapping[str, Sequence[int]] | None
) -> dict[int, tuple[int, ...]]:
    """Return the label values of each segment by its number."""
    with explained(str(path)):
        numbers = [int(number) for number in segmentation.segment_numbers if number]
        names = {
            number: str(segmentation.get_segment_description(number).segment_label) for number in numbers
        }
    known = {name.casefold(): tuple(values) for name, values in (labels or {}).items()}
    unknown = [name for name in names.values() if name.casefold() not in known]
    if len(unknown) == len(names):
        if max(numbers, default=0) > _HIGHEST_VALUE:
            raise InputError(
                f"{path}: expected segments numbered up to {_HIGHEST_VALUE}, got {max(numbers)}."
            )
        return {number: (number,) for number in numbers}
    if unknown:
        raise InputError(
            f"{path}: expected segments named {listed(list(labels or ()))}, got {listed(unknown)}. Correct the names, "
            "or the labels in dataset.json."
        )
    return {number: known[name.casefold()] for number, name in names.items()}


def _read_voxels(
    path: Path, segmentation: "Segmentation", values: Mapping[int, tuple[int, ...]]
) -> UInt8[np.ndarray, "z y x"]:
    """Return the label value of each voxel."""
    if all(len(of_segment) == 1 for of_segment in values.values()):
        table = np.zeros(_HIGHEST_VALUE + 1, np.uint8)
        for number, (value,) in values.items():
            table[number] = value
        with explained(str(path)):
            try:
                return table[segmentation.get_volume(combine_segments=True, dtype=np.uint8).array]
            except RuntimeError as error:
                if "overlap" not in str(error):
                    raise
    return _separate(path, segmentation, values)


def _separate(
    path: Path, segmentation: "Segmentation", values: Mapping[int, tuple[int, ...]]
) -> UInt8[np.ndarray, "z y x"]:
    """Return the label value of each voxel of segments that may overlap.

    A value belongs to the voxels that lie in exactly the segments of the value.
    """
    if len(values) > _MOST_OVERLAPPING:
        raise InputError(
            f"{path}: expected at most {_MOST_OVERLAPPING} segments that overlap, got {len(values)}."
        )
    codes = None
    for bit, number in enumerate(values):
        with explained(str(path)):
            mask = segmentation.get_volume(segment_numbers=[number], combine_segments=True, dtype=np.uint8)
        bits = (mask.array > 0).astype(np.uint64) << np.uint64(bit)
        codes = bits if codes is None else codes | bits
    assert codes is not None
    meanings = {0: 0}
    for value in sorted({value for of_segment in values.values() for value in of_segment}):
        code = sum(1 << bit for bit, of_segment in enumerate(values.values()) if value in of_segment)
        meanings.setdefault(code, value)
    found, places = np.unique(codes, return_inverse=True)
    unknown = [int(code) for code in found if int(code) not in meanings]
    if unknown:
        numbers = [str(number) for bit, number in enumerate(values) if unknown[0] >> bit & 1]
        raise InputError(
            f"{path}: expected segments that a label map can hold, got voxels in the segments {' and '.join(numbers)} "
            "at once. Describe regions of these names in dataset.json."
        )
    table = np.array([meanings[int(code)] for code in found], np.uint8)
    return table[places].reshape(codes.shape)


def place_on_grid(image: Image, grid: Image) -> Image:
    """Place the label map of a segmentation on another grid.

    The grid has voxels of the same size and is larger. Voxels that the map lacks are 0. Axes of opposite direction are
    flipped.

    Args:
        image: The label map.
        grid: Image with the grid.

    Returns:
        The label map on the grid, or the unchanged one if the grid has other voxels or is smaller.
    """
    flipped = _flip_like(image, grid)
    start = None if flipped is None else _find_start(flipped, grid)
    if flipped is None or start is None:
        return image
    end = [first + size for first, size in zip(start, flipped.shape, strict=True)]
    if min(start) < 0 or any(last > size for last, size in zip(end, grid.shape, strict=True)):
        return image
    array = np.zeros((1, *grid.shape), np.uint8)
    box = tuple(slice(first, last) for first, last in zip(start, end, strict=True))
    array[0][box] = flipped.array[0]
    return replace(grid, array=array)


def join_grids(first: Image, second: Image) -> Image:
    """Return an empty label map on the smallest grid that holds both.

    Args:
        first: Label map of a segmentation, whose axes the grid has.
        second: Another one.

    Returns:
        The empty map, or the first image if both have different voxels.
    """
    flipped = _flip_like(second, first)
    start = None if flipped is None else _find_start(flipped, first)
    if flipped is None or start is None:
        return first
    low = np.minimum(start, 0)
    high = np.maximum(np.add(start, flipped.shape), first.shape)
    shift = np.reshape(first.direction, (3, 3)) @ (low * np.asarray(first.spacing))[::-1]
    return replace(
        first,
        array=np.zeros((1, *(high - low)), np.uint8),
        origin=tuple(float(value) for value in np.add(first.origin, shift)),
    )


def _flip_like(image: Image, grid: Image) -> Image | None:
    """Flip the axes of an image along the axes of a grid.

    Returns:
        The image, or `None` if axes lie along other lines or spacings differ.
    """
    if image.num_axes != 3 or grid.num_axes != 3:
        return None
    own, wanted = (np.reshape(each.direction, (3, 3)) for each in (image, grid))
    signs = np.sign((own * wanted).sum(axis=0))
    if not np.allclose(own * signs, wanted, rtol=0, atol=DIRECTION_TOLERANCE):
        return None
    if not np.allclose(image.spacing, grid.spacing, rtol=SPACING_TOLERANCE, atol=0):
        return None
    steps = [int(sign) for sign in signs[::-1]]  # z, y, x
    corner = np.array(
        [size - 1 if step < 0 else 0 for size, step in zip(image.shape, steps, strict=True)], float
    )
    origin = np.add(image.origin, own @ (corner * image.spacing)[::-1])
    return replace(
        image,
        array=image.array[(slice(None), *(slice(None, None, step) for step in steps))],
        origin=tuple(float(value) for value in origin),
        direction=grid.direction,
    )


def _find_start(image: Image, grid: Image) -> list[int] | None:
    """Return the place of an image on a grid.

    Returns:
        Place (z, y, x) of the first voxel, or `None` if the voxels do not meet the grid.
    """
    direction: Float[np.ndarray, "3 3"] = np.reshape(grid.direction, (3, 3))
    offset = np.linalg.solve(direction, np.subtract(image.origin, grid.origin))[::-1] / np.asarray(
        grid.spacing
    )
    start = np.rint(offset)
    if np.abs(offset - start).max() > ORIGIN_TOLERANCE:
        return None
    return [int(value) for value in start]
