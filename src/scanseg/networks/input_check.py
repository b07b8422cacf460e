"""Checks of images and patch sizes of networks."""

import warnings
from collections.abc import Collection, Sequence

from torch import Tensor

from scanseg.errors import InputError

AXIS_NAMES = {2: "y, x", 3: "z, y, x"}
"""Names of the spatial axes, by their number."""


def check_image(
    x: Tensor,
    *,
    network: str,
    channels: Collection[int],
    total_stride: Sequence[int],
    min_deepest_voxels: int = 1,
) -> None:
    """Check rank, channel count and size of images.

    Args:
        x: Images. Expected shape: (batch, channel, y, x) or (batch, channel, z, y, x).
        network: Name of the network, for the message.
        channels: Valid channel counts.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Least number of voxels of the deepest map. It is 2 if a norm over voxels acts on it.

    Raises:
        InputError: The images have another rank, channel count or size.
    """
    num_axes = len(total_stride)
    if x.ndim != num_axes + 2:
        raise InputError(
            f"{network}: expected images of shape (batch, channel, {AXIS_NAMES[num_axes]}), got {x.ndim} axes, "
            f"shape {tuple(x.shape)}. Give {num_axes} spatial axes, and a batch axis of 1 for a single image."
        )
    if x.shape[1] not in channels:
        wanted = " or ".join(str(count) for count in sorted(channels))
        raise InputError(
            f"{network}: expected {wanted} channel(s), got {x.shape[1]} in shape {tuple(x.shape)}. Give images with "
            "the channels that the network was built for, or build it with another in_channels."
        )
    check_size(
        x.shape[2:], name="image size", total_stride=total_stride, min_deepest_voxels=min_deepest_voxels
    )


def check_size(
    size: Sequence[int], *, name: str, total_stride: Sequence[int], min_deepest_voxels: int = 1
) -> None:
    """Check that the stages of a network can divide a size.

    Args:
        size: Voxels per axis.
        name: Name of the size, for the message.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Least number of voxels of the deepest map.

    Raises:
        InputError: The size has another number of axes, is not divisible, or leaves too few voxels. The message holds
            the nearest valid size.
    """
    if len(size) != len(total_stride):
        raise InputError(
            f"{name}: expected {len(total_stride)} axes as the network, got {len(size)}: {tuple(size)}. Give one size "
            f"for each of {AXIS_NAMES[len(total_stride)]}."
        )
    nearest = nearest_size(size, total_stride=total_stride, min_deepest_voxels=min_deepest_voxels)
    if any(voxels < 1 or voxels % stride for voxels, stride in zip(size, total_stride, strict=True)):
        raise InputError(
            f"{name}: expected multiples of the network's total stride {tuple(total_stride)}, got {tuple(size)}. The "
            f"nearest valid size is {nearest}."
        )
    if _deepest_voxels(size, total_stride) < min_deepest_voxels:
        raise InputError(
            f"{name}: expected at least {min_deepest_voxels} voxels after the network's total stride "
            f"{tuple(total_stride)}, because norms over voxels act on them, got a single voxel from {tuple(size)}. The "
            f"nearest valid size is {nearest}."
        )


def nearest_size(
    size: Sequence[int], *, total_stride: Sequence[int], min_deepest_voxels: int = 1
) -> tuple[int, ...]:
    """Return the nearest valid size of a network's images.

    Args:
        size: Voxels per axis.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Least number of voxels of the deepest map.

    Returns:
        Voxels per axis, multiples of the total stride.
    """
    nearest = [
        max(1, (voxels + stride // 2) // stride) * stride
        for voxels, stride in zip(size, total_stride, strict=True)
    ]
    return _enlarged(nearest, total_stride, min_deepest_voxels)


def padded_size(
    size: Sequence[int], *, total_stride: Sequence[int], min_deepest_voxels: int = 1
) -> tuple[int, ...]:
    """Return the smallest valid size that holds an image.

    Args:
        size: Voxels per axis.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Least number of voxels of the deepest map.

    Returns:
        Voxels per axis, multiples of the total stride.
    """
    multiples = [-(-voxels // stride) * stride for voxels, stride in zip(size, total_stride, strict=True)]
    return _enlarged(multiples, total_stride, min_deepest_voxels)


def _enlarged(size: list[int], total_stride: Sequence[int], min_deepest_voxels: int) -> tuple[int, ...]:
    """Enlarge the axis with the smallest stride until the deepest map has enough voxels."""
    enlarged = list(size)
    while _deepest_voxels(enlarged, total_stride) < min_deepest_voxels:
        smallest = min(range(len(enlarged)), key=lambda axis: total_stride[axis])
        enlarged[smallest] += total_stride[smallest]
    return tuple(enlarged)


def _deepest_voxels(size: Sequence[int], total_stride: Sequence[int]) -> int:
    voxels = 1
    for axis_size, stride in zip(size, total_stride, strict=True):
        voxels *= axis_size // stride
    return voxels


def warn_of_compiled_training() -> None:
    """Warn that compiled training of a 2D network on a CPU may abort.

    The compiler calls this function while it traces, not at each step.
    """
    warnings.warn(
        "Training of the 2D xLSTM-UNet under torch.compile on a CPU has aborted processes with PyTorch 2.13.0 and "
        "2.14.1 (double free in Inductor's backward pass). Train without torch.compile on a CPU.",
        RuntimeWarning,
        stacklevel=2,
    )


# The mark of torch.compiler.assume_constant_result, which imports the compiler: 0.9 s in each prediction.
warn_of_compiled_training._dynamo_marked_constant = True  # type: ignore[attr-defined]
