"""Small arrays of the host, brought to a device together.

Each copy and each launch costs the host some microseconds, whatever its size, and a copy from memory that is not
pinned waits until the device has done all work of the stream. So arrays that are needed together go as one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_ALIGNMENT = 16
"""Bytes whose multiples arrays begin at."""


def to_device(*arrays: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """Bring arrays to a device, by one copy that the host does not wait for where it is a CUDA device.

    Args:
        arrays: The arrays, of any types and shapes.
        device: Where they are wanted.

    Returns:
        A tensor for each array; on the CPU it may share the array's memory.
    """
    if device.type != "cuda":
        return tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
    return unpack(pack(arrays, pinned=True).to(device, non_blocking=True), arrays)


def pack(arrays: Sequence[np.ndarray], *, pinned: bool) -> UInt8[Tensor, " byte"]:
    """Write arrays one behind the other.

    Args:
        arrays: The arrays.
        pinned: In memory that a GPU can read by itself.
    """
    places = _places(arrays)
    packed = torch.empty(places[-1].stop if places else 0, dtype=torch.uint8, pin_memory=pinned)
    target = packed.numpy()
    for array, place in zip(arrays, places, strict=True):
        target[place] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return packed


def unpack(packed: UInt8[Tensor, " byte"], arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    """Return packed arrays as tensors that share the memory.

    Args:
        packed: What `pack` made, or a copy of it on any device.
        arrays: The arrays that were packed; of them only types and shapes are asked.
    """
    return tuple(
        packed[place].view(torch.from_numpy(np.empty(0, array.dtype)).dtype).view(array.shape)
        for array, place in zip(arrays, _places(arrays), strict=True)
    )


def _places(arrays: Sequence[np.ndarray]) -> list[slice]:
    """Return which bytes each array takes."""
    places: list[slice] = []
    begin = 0
    for array in arrays:
        places.append(slice(begin, begin + array.nbytes))
        begin = -(-places[-1].stop // _ALIGNMENT) * _ALIGNMENT
    return places
