"""From an image in its file's grid to the array that a network sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from scanseg.errors import InputError
from scanseg.imaging import (
    Image,
    find_nonzero_box,
    find_nonzero_part,
    lift,
    resample_image,
    resample_label_map,
)
from scanseg.messages import counted
from scanseg.preprocessing.geometry import (
    crop_from_source,
    lifted_spacing,
    permute,
    separates_z,
    target_spacing,
)
from scanseg.preprocessing.normalization import normalize
from scanseg.specs import CaseGeometry, PreprocessingSpec, ZScoreNormalization


@dataclass(frozen=True, eq=False)
class PreprocessedCase:
    """A case on the network's grid."""

    image: Float32[np.ndarray, "channel z y x"]
    label_map: UInt8[np.ndarray, "z y x"]
    geometry: CaseGeometry


def preprocess_image(
    image: Image, preprocessing: PreprocessingSpec
) -> tuple[Float32[np.ndarray, "channel z y x"], CaseGeometry]:
    """Permute, crop, normalise and resample an image.

    Args:
        image: The image as it was read.
        preprocessing: What to do.

    Returns:
        The array, and how to come back to the source's grid.

    Raises:
        InputError: The image has another number of channels than the preprocessing, or two axes where
            `axis_order` moves z.
    """
    geometry = _find_geometry(image, preprocessing)
    cropped = crop_from_source(image.array, geometry)
    nonzero_part = None
    if any(isinstance(n, ZScoreNormalization) and n.nonzero_only for n in preprocessing.normalizations):
        nonzero_part = find_nonzero_part(cropped)
    normalized = np.stack(
        [
            normalize(channel.astype(np.float32), normalization, nonzero_part=nonzero_part)
            for channel, normalization in zip(cropped, preprocessing.normalizations, strict=True)
        ]
    )
    resampled = resample_image(
        normalized,
        geometry.shape,
        order=preprocessing.image_order,
        separate_z=separates_z(geometry, preprocessing),
    )
    return resampled, geometry


def preprocess_case(
    image: Image, label_map: Integer[np.ndarray, "*spatial"], preprocessing: PreprocessingSpec
) -> PreprocessedCase:
    """Preprocess an image and its label map alike.

    Args:
        image: The image as it was read.
        label_map: Labels from 0 to 255 on the image's grid, of shape (z, y, x) or (y, x).
        preprocessing: What to do.

    Raises:
        InputError: The label map has another shape than the image or labels out of range, or the image
            another number of channels than the preprocessing.
    """
    if label_map.shape != image.shape:
        raise InputError(f"label map of shape {label_map.shape} for an image of shape {image.shape}.")
    if label_map.min() < 0 or label_map.max() > 255:
        raise InputError(f"labels from {label_map.min()} to {label_map.max()}; they must be from 0 to 255.")
    array, geometry = preprocess_image(image, preprocessing)
    labels = resample_label_map(
        np.ascontiguousarray(crop_from_source(label_map, geometry), dtype=np.uint8),
        geometry.shape,
        order=preprocessing.label_order,
        separate_z=separates_z(geometry, preprocessing),
    )
    return PreprocessedCase(image=array, label_map=labels, geometry=geometry)


def _find_geometry(image: Image, preprocessing: PreprocessingSpec) -> CaseGeometry:
    """Find what is kept of an image and how many voxels it is resampled to."""
    expected = len(preprocessing.normalizations)
    if image.num_channels != expected:
        raise InputError(
            f"image of {counted(image.num_channels, 'channel')}, not {expected}; "
            "give the channels that the data set describes, in their order."
        )
    if image.num_axes == 2 and preprocessing.axis_order[0] != 0:
        raise InputError(
            f"axis_order {preprocessing.axis_order} moves the z axis, which an image of two axes does not have; "
            "use (0, 1, 2) or (0, 2, 1)."
        )
    permuted = permute(lift(image.array, image.num_axes), preprocessing.axis_order)
    start, crop_shape = (0, 0, 0), permuted.shape[1:]
    if preprocessing.crop_to_nonzero:
        start, crop_shape = find_nonzero_box(permuted)
    geometry = CaseGeometry(
        num_axes=2 if image.num_axes == 2 else 3,
        source_shape=image.shape,
        source_spacing=image.spacing,
        axis_order=preprocessing.axis_order,
        crop_start=start,
        crop_shape=crop_shape,
        shape=crop_shape,
    )
    return geometry.model_copy(update={"shape": _target_shape(geometry, preprocessing)})


def _target_shape(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> tuple[int, int, int]:
    """Voxels after resampling: the same extent in mm, to the nearest voxel; at least one."""
    if preprocessing.slice_size is not None:
        return (geometry.crop_shape[0], *preprocessing.slice_size)
    z, y, x = (
        max(1, round(size * spacing / target))
        for size, spacing, target in zip(
            geometry.crop_shape,
            lifted_spacing(geometry),
            target_spacing(geometry, preprocessing),
            strict=True,
        )
    )
    return (1 if geometry.num_axes == 2 else z), y, x
