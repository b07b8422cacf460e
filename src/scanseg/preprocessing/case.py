"""Preprocessing of an image on its source grid to the network's grid."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from scanseg.errors import InputError
from scanseg.imaging import (
    Image,
    as_volume,
    axis_codes,
    find_nonzero_box,
    find_nonzero_mask,
    find_reorientation,
    resample_image,
    resample_label_map,
)
from scanseg.messages import counted
from scanseg.preprocessing.geometry import (
    crop_from_source,
    flip,
    lifted_spacing,
    permute,
    separates_z,
    target_spacing,
)
from scanseg.preprocessing.normalization import normalize
from scanseg.runtime import physical_memory
from scanseg.sizes import check_voxels
from scanseg.specs import CaseGeometry, PreprocessingSpec, ZScoreNormalization

_BEYOND = 2.0**62
"""Size beyond any array. Larger ones may be infinite."""


@dataclass(frozen=True, eq=False)
class PreprocessedCase:
    """A case on the network's grid."""

    image: Float32[np.ndarray, "channel z y x"]
    label_map: UInt8[np.ndarray, "z y x"]
    geometry: CaseGeometry


def preprocess_image(
    image: Image, preprocessing: PreprocessingSpec
) -> tuple[Float32[np.ndarray, "channel z y x"], CaseGeometry]:
    """Permute, crop, normalize and resample an image.

    Neighbouring slices become channels if the plan has them.

    Args:
        image: Image on its source grid, (channel, *spatial).
        preprocessing: Preprocessing of the plan.

    Returns:
        The array (channel, z, y, x), and the geometry that maps it back to the source grid.

    Raises:
        InputError: The image has another number of channels than the preprocessing, the image has two axes and
            `axis_order` moves z, intensities exceed float32, or the result does not fit into memory.
    """
    geometry = _find_geometry(image, preprocessing)
    _check_memory(geometry, num_channels=preprocessing.num_channels)
    cropped = crop_from_source(image.array, geometry)
    nonzero_part = None
    if any(isinstance(n, ZScoreNormalization) and n.nonzero_only for n in preprocessing.normalizations):
        nonzero_part = find_nonzero_mask(cropped)
    normalized = np.stack(
        [
            normalize(_to_single(channel), normalization, nonzero_part=nonzero_part)
            for channel, normalization in zip(cropped, preprocessing.normalizations, strict=True)
        ]
    )
    resampled = resample_image(
        normalized,
        geometry.shape,
        order=preprocessing.image_order,
        separate_z=separates_z(geometry, preprocessing),
    )
    return _with_neighbours(resampled, preprocessing), geometry


def _with_neighbours(
    image: Float32[np.ndarray, "channel z y x"], preprocessing: PreprocessingSpec
) -> Float32[np.ndarray, "stacked z y x"]:
    """Add the neighbours of each slice as channels.

    The lowest come first. Beyond the ends of the volume they are empty.
    """
    reach = preprocessing.neighbour_slices
    if reach == 0:
        return image
    channels, depth, height, width = image.shape
    empty = np.asarray(preprocessing.background_value[:channels], dtype=np.float32)
    padded = np.empty((channels, depth + 2 * reach, height, width), dtype=np.float32)
    padded[:] = empty[:, None, None, None]
    padded[:, reach : reach + depth] = image
    return np.concatenate([padded[:, first : first + depth] for first in range(2 * reach + 1)])


def _to_single(channel: np.ndarray) -> Float32[np.ndarray, "z y x"]:
    """Convert a channel to float32.

    Raises:
        InputError: Intensities exceed the range of float32.
    """
    with np.errstate(over="ignore"):
        converted = channel.astype(np.float32)
    if channel.dtype.kind == "f" and channel.dtype.itemsize > 4 and not np.isfinite(converted).all():
        limit, largest = float(np.finfo(np.float32).max), float(np.abs(channel).max())
        raise InputError(
            f"intensities: expected at most {limit:.3g} (float32), got {largest:.3g}. Rescale the image, or replace "
            "the value if it marks missing voxels."
        )
    return converted


def _check_memory(geometry: CaseGeometry, *, num_channels: int) -> None:
    """Check before resampling that the result fits into memory.

    Raises:
        InputError: It does not. The message names the spacing, which is the usual cause.
    """
    needed, available = 4 * num_channels * math.prod(geometry.shape), physical_memory()
    if needed <= available:
        return
    spacing = " x ".join(f"{size:.6g}" for size in geometry.source_spacing)
    shape = " x ".join(map(str, geometry.shape))
    raise InputError(
        f"resampling: expected at most {available / 2**30:.0f} GiB (the memory of this computer), got "
        f"{needed / 2**30:.0f} GiB for {shape} voxels, from a spacing of {spacing} mm. Correct the spacing in the "
        "header, or choose a larger preprocessing.spacing."
    )


def preprocess_case(
    image: Image, label_map: Integer[np.ndarray, "*spatial"], preprocessing: PreprocessingSpec
) -> PreprocessedCase:
    """Preprocess an image and its label map to the same grid.

    Args:
        image: Image on its source grid, (channel, *spatial).
        label_map: Labels from 0 to 255 on the same grid, (z, y, x) or (y, x).
        preprocessing: Preprocessing of the plan.

    Raises:
        InputError: The label map has another shape than the image or labels out of range, or the image has another
            number of channels than the preprocessing.
    """
    if label_map.shape != image.shape:
        raise InputError(f"label map: expected shape {image.shape} of the image, got {label_map.shape}.")
    if label_map.min() < 0 or label_map.max() > 255:
        raise InputError(f"labels: expected 0 to 255, got {label_map.min()} to {label_map.max()}.")
    array, geometry = preprocess_image(image, preprocessing)
    labels = resample_label_map(
        np.ascontiguousarray(crop_from_source(label_map, geometry), dtype=np.uint8),
        geometry.shape,
        order=preprocessing.label_order,
        separate_z=separates_z(geometry, preprocessing),
    )
    return PreprocessedCase(image=array, label_map=labels, geometry=geometry)


def to_grid(
    label_map: UInt8[np.ndarray, "*source"], geometry: CaseGeometry, preprocessing: PreprocessingSpec
) -> UInt8[np.ndarray, "z y x"]:
    """Resample a predicted label map to the network's grid.

    Args:
        label_map: Label map on the source grid.
        geometry: Geometry of the network's grid in the source.
        preprocessing: Preprocessing of the case.

    Raises:
        InputError: The label map has another shape than the source.
    """
    if label_map.shape != tuple(geometry.source_shape):
        raise InputError(
            f"predicted label map: expected shape {geometry.source_shape} as the image, got {label_map.shape}."
        )
    return resample_label_map(
        np.ascontiguousarray(crop_from_source(label_map, geometry)),
        geometry.shape,
        order=preprocessing.label_order,
        separate_z=separates_z(geometry, preprocessing),
    )


def _find_geometry(image: Image, preprocessing: PreprocessingSpec) -> CaseGeometry:
    """Return the crop of an image and its shape after resampling."""
    expected = len(preprocessing.normalizations)
    if image.num_channels != expected:
        raise InputError(
            f"image: expected {counted(expected, 'channel')}, got {image.num_channels}. Use the channels in "
            "dataset.json, in their order."
        )
    if image.num_axes == 2 and preprocessing.axis_order[0] != 0:
        raise InputError(
            f"axis_order {preprocessing.axis_order} moves the z axis, which an image of two axes does not have. Use "
            "(0, 1, 2) or (0, 2, 1)."
        )
    axis_order, flips = _find_axes(image, preprocessing)
    permuted = flip(permute(as_volume(image.array, image.num_axes), axis_order), flips)
    start, crop_shape = (0, 0, 0), permuted.shape[1:]
    if preprocessing.crop_to_nonzero:
        start, crop_shape = find_nonzero_box(permuted)
    geometry = CaseGeometry(
        num_axes=2 if image.num_axes == 2 else 3,
        source_shape=image.shape,
        source_spacing=image.spacing,
        axis_order=axis_order,
        flips=flips,
        crop_start=start,
        crop_shape=crop_shape,
        shape=crop_shape,
    )
    return geometry.model_copy(update={"shape": _target_shape(geometry, preprocessing)})


def _find_axes(
    image: Image, preprocessing: PreprocessingSpec
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the source axes of the network's grid, and their flips."""
    codes = axis_codes(image)
    if preprocessing.orientation is None or codes is None:
        return preprocessing.axis_order, (False, False, False)
    order, flips = find_reorientation(codes, preprocessing.orientation)
    z, y, x = preprocessing.axis_order
    return (order[z], order[y], order[x]), (flips[z], flips[y], flips[x])


def _target_shape(geometry: CaseGeometry, preprocessing: PreprocessingSpec) -> tuple[int, int, int]:
    """Return the shape after resampling, with the extent in mm unchanged.

    Sizes are rounded to the nearest voxel, and are at least one. The order of the operations is that of nnU-Net, since
    it decides the rounding of half voxels.

    Raises:
        InputError: The shape has too many voxels.
    """
    if preprocessing.slice_size is not None:
        shape = (geometry.crop_shape[0], *preprocessing.slice_size)
        check_voxels(shape, f"resizing of slices to {preprocessing.slice_size}")
        return shape
    source, wanted = lifted_spacing(geometry), target_spacing(geometry, preprocessing)
    z, y, x = (
        max(1, round(min(spacing / target * size, _BEYOND)))
        for size, spacing, target in zip(geometry.crop_shape, source, wanted, strict=True)
    )
    shape = (1 if geometry.num_axes == 2 else z), y, x
    check_voxels(shape, f"resampling of {geometry.crop_shape} voxels of {source} mm to voxels of {wanted} mm")
    return shape
