"""Checks of the images that enter a network, and of the patch size that it is built for."""

from collections.abc import Collection, Sequence

from torch import Tensor

from scanseg.errors import InputError

AXIS_NAMES = {2: "y, x", 3: "z, y, x"}


def check_image(
    x: Tensor,
    *,
    network: str,
    channels: Collection[int],
    total_stride: Sequence[int],
    min_deepest_voxels: int = 1,
) -> None:
    """Refuse images of the wrong rank, channel count or size.

    Args:
        x: What should be (batch, channel, *space).
        network: Name of the network, for the message.
        channels: Channel counts that the network takes.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Voxels that the deepest map must have (2 where a norm over voxels acts on it).

    Raises:
        InputError: The image does not fit.
    """
    num_axes = len(total_stride)
    if x.ndim != num_axes + 2:
        raise InputError(
            f"{network} takes images of shape (batch, channel, {AXIS_NAMES[num_axes]}); got {x.ndim} axes, "
            f"shape {tuple(x.shape)}. Give {num_axes} spatial axes, "
            "with a batch axis of 1 for a single image."
        )
    if x.shape[1] not in channels:
        wanted = " or ".join(str(count) for count in sorted(channels))
        raise InputError(
            f"{network} takes {wanted} channel(s), got {x.shape[1]} in shape {tuple(x.shape)}. Give images "
            "with the channels that the network was built for, or build it with another in_channels."
        )
    check_size(
        x.shape[2:], name="image size", total_stride=total_stride, min_deepest_voxels=min_deepest_voxels
    )


def check_size(
    size: Sequence[int], *, name: str, total_stride: Sequence[int], min_deepest_voxels: int = 1
) -> None:
    """Refuse a size that the stages cannot divide, naming the nearest that they can.

    Args:
        size: Voxels per axis.
        name: What the size is, for the message.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Voxels that the deepest map must have.

    Raises:
        InputError: The size has another number of axes, is not divisible, or leaves too few voxels.
    """
    if len(size) != len(total_stride):
        raise InputError(
            f"{name} {tuple(size)} has {len(size)} axes, but the network has {len(total_stride)}. Give one "
            f"size for each of {AXIS_NAMES[len(total_stride)]}."
        )
    nearest = nearest_size(size, total_stride=total_stride, min_deepest_voxels=min_deepest_voxels)
    if any(voxels < 1 or voxels % stride for voxels, stride in zip(size, total_stride, strict=True)):
        raise InputError(
            f"{name} {tuple(size)} is not divisible by the network's total stride {tuple(total_stride)}; the "
            f"nearest is {nearest}."
        )
    if _deepest_voxels(size, total_stride) < min_deepest_voxels:
        raise InputError(
            f"{name} {tuple(size)} leaves a single voxel after the network's total stride "
            f"{tuple(total_stride)}, which no norm over voxels can take; the nearest is {nearest}."
        )


def nearest_size(
    size: Sequence[int], *, total_stride: Sequence[int], min_deepest_voxels: int = 1
) -> tuple[int, ...]:
    """Return the valid size that is nearest to a size, per axis.

    Args:
        size: Voxels per axis.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Voxels that the deepest map must have.
    """
    nearest = [
        max(1, (voxels + stride // 2) // stride) * stride
        for voxels, stride in zip(size, total_stride, strict=True)
    ]
    while _deepest_voxels(nearest, total_stride) < min_deepest_voxels:
        smallest = min(range(len(nearest)), key=lambda axis: total_stride[axis])
        nearest[smallest] += total_stride[smallest]
    return tuple(nearest)


def _deepest_voxels(size: Sequence[int], total_stride: Sequence[int]) -> int:
    voxels = 1
    for axis_size, stride in zip(size, total_stride, strict=True):
        voxels *= axis_size // stride
    return voxels
