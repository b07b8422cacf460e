"""Copies of several small host arrays to a device at once.

Each copy and each launch costs the host some microseconds, whatever its size. A copy from memory that is not pinned
waits until the device has finished all work of the stream. So arrays that are needed together are copied together.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_ALIGNMENT = 16
"""Arrays start at multiples of this number of bytes."""


def to_device(*arrays: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """Copy arrays to a device.

    For a CUDA device this is one asynchronous copy.

    Args:
        arrays: Arrays of any types and shapes.
        device: Device of the tensors.

    Returns:
        A tensor per array. On the CPU it may share the array's memory.
    """
    if device.type != "cuda":
        return tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
    return unpack(pack(arrays, pinned=True).to(device, non_blocking=True), arrays)


def pack(arrays: Sequence[np.ndarray], *, pinned: bool) -> UInt8[Tensor, " byte"]:
    """Pack arrays into one buffer.

    Args:
        arrays: Arrays of any types and shapes.
        pinned: Use pinned memory, which a GPU reads directly.
    """
    places = _places(arrays)
    packed = torch.empty(places[-1].stop if places else 0, dtype=torch.uint8, pin_memory=pinned)
    buffer = packed.numpy()
    for array, place in zip(arrays, places, strict=True):
        buffer[place] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return packed


def unpack(packed: UInt8[Tensor, " byte"], arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    """Return packed arrays as tensors that share the memory.

    Args:
        packed: Result of `pack`, or a copy of it on any device.
        arrays: The packed arrays. Only their types and shapes are used.
    """
    return tuple(
        packed[place].view(torch.from_numpy(np.empty(0, array.dtype)).dtype).view(array.shape)
        for array, place in zip(arrays, _places(arrays), strict=True)
    )


def _places(arrays: Sequence[np.ndarray]) -> list[slice]:
    """Return the range of bytes of each array in the buffer."""
    places: list[slice] = []
    begin = 0
    for array in arrays:
        places.append(slice(begin, begin + array.nbytes))
        begin = -(-places[-1].stop // _ALIGNMENT) * _ALIGNMENT
    return places
