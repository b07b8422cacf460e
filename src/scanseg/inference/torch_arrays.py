"""Operations of PyTorch on the arrays of prediction, see `scanseg.inference.arrays`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TorchArrays:
    """Operations on tensors of a device."""

    device: torch.device
    """The device."""

    def zeros(self, shape: Sequence[int], *, half: bool = False) -> Tensor:
        """See `Arrays`."""
        return torch.zeros(tuple(shape), dtype=torch.float16 if half else torch.float32, device=self.device)

    def of(self, values: Any) -> Tensor:
        """See `Arrays`."""
        if isinstance(values, np.ndarray):
            return torch.from_numpy(values).to(self.device, torch.float32)
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def place(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.to(self.device)

    def to_numpy(self, array: Tensor, *, half: bool = False) -> np.ndarray:
        """See `Arrays`."""
        return (array.half() if half else array).cpu().numpy()

    def single(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.float()

    def copy(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.clone()

    def stack(self, arrays: Sequence[Tensor]) -> Tensor:
        """See `Arrays`."""
        return torch.stack(tuple(arrays))

    def concatenate(self, arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
        """See `Arrays`."""
        return torch.cat(tuple(arrays), dim=axis)

    def take(self, array: Tensor, places: np.ndarray) -> Tensor:
        """See `Arrays`."""
        return array[:, torch.from_numpy(places).to(array.device)]

    def flip(self, array: Tensor, axes: tuple[int, ...]) -> Tensor:
        """See `Arrays`."""
        return array.flip(axes)

    def pad_planes(self, array: Tensor, *, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """See `Arrays`."""
        return F.pad(array, (*columns, *rows))

    def resize_planes(self, array: Tensor, plane: tuple[int, int]) -> Tensor:
        """See `Arrays`."""
        return F.interpolate(array, size=plane, mode="bilinear", align_corners=False)

    def lerp(self, start: Tensor, end: Tensor, weight: Any) -> Tensor:
        """See `Arrays`."""
        return torch.lerp(start, end, weight)

    def exp(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.exp()

    def softmax(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.softmax(0)

    def sigmoid(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.sigmoid()

    def entropy_terms(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return -torch.special.xlogy(array, array)

    def argmax(self, array: Tensor) -> Tensor:
        """See `Arrays`."""
        # Equal to argmax, in less than half of its time on a CPU.
        return array.max(0).indices.to(torch.uint8)

    def look_up(self, table: Tensor, places: Tensor) -> Tensor:
        """See `Arrays`."""
        return table[places.long()]

    def where(self, mask: Tensor, value: int, array: Tensor) -> Tensor:
        """See `Arrays`."""
        return array.masked_fill(mask, value)

    def all_finite(self, array: Tensor) -> bool:
        """See `Arrays`."""
        return bool(array.isfinite().all())

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[object]:
        """See `Arrays`."""
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def gpu_memory(self) -> int | None:
        """See `Arrays`."""
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else None

    def on_host(self) -> "TorchArrays":
        """See `Arrays`."""
        return TorchArrays(torch.device("cpu"))
