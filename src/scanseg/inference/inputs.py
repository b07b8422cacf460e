"""Conversion of files, arrays and images to input images."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.imaging import BinaryFile, Image, direction_of, find_dicom, image_from_memory, read_image
from scanseg.inference.foreign import refuse_foreign
from scanseg.inference.input_checks import (
    check_size,
    image_warnings,
    spacing_warning,
    unknown_orientation_warning,
)
from scanseg.messages import counted
from scanseg.preprocessing import preprocess_image
from scanseg.specs import CaseGeometry, Plan

Source = str | Path | Sequence[Path] | bytes | BinaryFile | np.ndarray | Image
"""A file, the files of the channels, the content of a file, an array or an image.

Images of pillow, SimpleITK and nibabel are accepted too. Their libraries are not imported for their types.
"""


def open_source(source: Source, plan: Plan, *, spacing: Sequence[float] | None = None) -> Image:
    """Return the image of a source.

    Args:
        source: File of an image, its files, an image, or an array; see `Predictor.predict`.
        plan: Plan of the model.
        spacing: Millimetres per voxel of an array along its spatial axes.

    Raises:
        InputError: The image cannot be read, or does not fit the plan.
        UsageError: The arguments exclude each other.
    """
    refuse_foreign(source)
    if isinstance(source, str | PathLike):
        source = Path(source)
    if isinstance(source, np.ndarray):
        image = _image_of_array(source, spacing, plan)
    elif spacing is not None:
        raise UsageError("spacing: expected none for files and images, which have their own. Leave it out.")
    elif isinstance(source, Path) and source.is_dir() and not find_dicom([source]):
        raise UsageError(
            f"{source}: expected a file or a DICOM series, got a folder. Segment all of its cases by predict_folder."
        )
    elif isinstance(source, Image):
        image = source
    else:
        num_channels = plan.dataset.num_channels
        in_memory = image_from_memory(source, num_channels=num_channels)
        image = read_image(_files_of(source), num_channels=num_channels) if in_memory is None else in_memory
    image = _colours_of_grey(image, plan)
    _check_axes(image, source, plan)
    try:
        check_size(image, plan)
    except InputError as error:
        raise InputError(f"{describe(source)}: {error}") from error
    return image


def preprocess_source(
    image: Image, source: Source, plan: Plan
) -> tuple[Float32[np.ndarray, "channel z y x"], CaseGeometry]:
    """Preprocess the image of a source.

    Args:
        image: The image.
        source: Its source, for messages.
        plan: Plan of the model.

    Returns:
        Image on the network's grid, and the geometry of that grid.

    Raises:
        InputError: The image does not fit the plan.
        ScansegError: The memory of the host ran out.
    """
    try:
        return preprocess_image(image, plan.preprocessing)
    except InputError as error:
        raise InputError(f"{describe(source)}: {error}") from error
    except MemoryError as error:
        raise ScansegError(
            f"{describe(source)}: not enough memory on the host to preprocess {image.array.nbytes} bytes "
            f"({error}). {spacing_warning(image, plan) or 'Close other programs that use it.'}"
        ) from error


def find_warnings(image: Image, source: Source, plan: Plan) -> tuple[str, ...]:
    """Return the warnings about an image, its files and the plan.

    Args:
        image: Image to segment.
        source: Its source.
        plan: Plan of the model.
    """
    unknown = unknown_orientation_warning(image, _files_of(source), plan)
    return (*image_warnings(image, plan), *(() if unknown is None else (unknown,)))


def _files_of(source: Source) -> list[Path]:
    """Return the files of a source. Objects in memory have none."""
    if isinstance(source, str | PathLike):
        return [Path(source)]
    return [Path(str(path)) for path in source] if isinstance(source, list | tuple) else []


def _colours_of_grey(image: Image, plan: Plan) -> Image:
    """Return a grey picture as red, green and blue, if the plan has colour pictures."""
    if not plan.dataset.has_colour_pictures or image.num_channels != 1 or image.num_axes != 2:
        return image
    warning = "grey picture: the network was trained with colour pictures. Red, green and blue are equal."
    return replace(image, array=np.repeat(image.array, 3, axis=0), warnings=(*image.warnings, warning))


def _check_axes(image: Image, source: Source, plan: Plan) -> None:
    """Check that an image has the number of axes of the plan.

    A 2D network also accepts single slices of volumes.
    """
    if image.num_axes == plan.num_axes:
        return
    if image.num_axes == 2 and len(plan.sampling.patch_size) == 2:
        return
    raise InputError(
        f"{describe(source)}: expected {plan.num_axes} spatial axes as in the training, got {image.num_axes} (shape "
        f"{image.shape}). Use images with {plan.num_axes} axes."
    )


def _image_of_array(array: Shaped[np.ndarray, "..."], spacing: Sequence[float] | None, plan: Plan) -> Image:
    """Return the image of an array.

    Its axes are those of the plan's orientation.
    """
    num_axes = plan.num_axes
    if spacing is None and plan.preprocessing.spacing is not None:
        raise UsageError(
            f"the plan resamples to {plan.preprocessing.spacing} mm, so an array needs its spacing. Pass spacing= with "
            f"{num_axes} numbers in mm per voxel."
        )
    channels = _channels_first(array, num_axes=num_axes, num_channels=plan.dataset.num_channels)
    faults = []
    numbers = {plan.dataset.num_channels, *([1] if plan.dataset.has_colour_pictures else [])}
    if channels.ndim != num_axes + 1 or len(channels) not in numbers:
        faults.append(
            f"array: expected {counted(plan.dataset.num_channels, 'channel')} "
            f"({', '.join(plan.dataset.channel_names)}) before {num_axes} spatial axes, got shape {array.shape}"
        )
    if array.size == 0:
        faults.append(f"array: expected at least one voxel, got shape {array.shape}")
    if array.dtype.kind not in "iufb":
        faults.append(f"array: expected integers or floats, got {array.dtype}")
    elif not np.isfinite(array).all():
        faults.append("array: expected finite values, got NaN or infinite ones. Replace them")
    try:
        sizes = (1.0,) * num_axes if spacing is None else tuple(float(size) for size in spacing)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != num_axes or not all(0 < size < np.inf for size in sizes):
        faults.append(f"spacing: expected {num_axes} positive numbers in mm, got {sizes or spacing}")
    if faults:
        raise InputError("; ".join(faults))
    direction = _direction_of_arrays(plan)
    return Image(channels, spacing=sizes, origin=(0.0,) * num_axes, direction=direction)


def _channels_first(
    array: Shaped[np.ndarray, "..."], *, num_axes: int, num_channels: int
) -> Shaped[np.ndarray, "..."]:
    """Return an array with its channel axis first.

    The last axis is the channel axis if only its size is the number of channels.
    """
    if array.ndim != num_axes + 1:
        return array[np.newaxis]
    if array.shape[0] != num_channels and array.shape[-1] == num_channels:
        return np.moveaxis(array, -1, 0)
    return array


def _direction_of_arrays(plan: Plan) -> tuple[float, ...]:
    """Return the direction cosines of an array in the plan's orientation."""
    if plan.num_axes == 3 and plan.preprocessing.orientation is not None:
        return direction_of(plan.preprocessing.orientation)
    return tuple(float(value) for value in np.eye(plan.num_axes).ravel())


def orientation_warning(plan: Plan) -> str | None:
    """Return a warning if the plan has no orientation.

    Volumes are then predicted as stored.

    Args:
        plan: The plan.
    """
    if plan.num_axes == 2 or plan.preprocessing.orientation is not None:
        return None
    return (
        "the plan has no orientation, so volumes are predicted as stored. Give images stored like the images of the "
        "training, or train again to have images reoriented."
    )


def describe(source: Source) -> str:
    """Return the name of a source, for messages.

    Args:
        source: A file, its files, an image or an array.
    """
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, list | tuple):
        return ", ".join(str(path) for path in source)
    return "the image"
