"""Operations on arrays that NumPy and PyTorch name differently.

The rules of prediction (windows, blending, resampling, uncertainty) are written once, for arrays of both libraries.
PyTorch is imported only for its own tensors, so exported models run without it. Both libraries compute in float32.
Their results may differ in the last bits.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar

import numpy as np
from scipy import special

from scanseg.imaging import resample_image

if TYPE_CHECKING:
    import torch

Array = Any
"""A `torch.Tensor` or a `numpy.ndarray`."""
Network = Callable[[Array], Array]
"""Network in evaluation mode, from windows (batch, channel, *patch) to logits (batch, output, *patch)."""
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Host:
    """Processor of this computer, for networks of another library than PyTorch."""

    type: str = "cpu"
    """Kind of the device, as of a `torch.device`."""

    def __str__(self) -> str:
        """Return the name of the device, as for PyTorch."""
        return self.type


Device: TypeAlias = "torch.device | Host"
"""Device of networks."""


class Arrays(Protocol):
    """Operations on arrays of one library and device."""

    def zeros(self, shape: Sequence[int], *, half: bool = False) -> Array:
        """Return zeros in float32, or in float16."""

    def of(self, values: Any) -> Array:
        """Return numbers or an array as float32 on the device."""

    def place(self, array: Array) -> Array:
        """Return an array on the device."""

    def to_numpy(self, array: Array, *, half: bool = False) -> np.ndarray:
        """Return an array on the host, in float16 if wanted."""

    def single(self, array: Array) -> Array:
        """Return an array as float32."""

    def copy(self, array: Array) -> Array:
        """Return a copy."""

    def stack(self, arrays: Sequence[Array]) -> Array:
        """Join arrays along a new first axis."""

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """Join arrays along an axis."""

    def take(self, array: Array, places: np.ndarray) -> Array:
        """Return slices of an array along its second axis."""

    def flip(self, array: Array, axes: tuple[int, ...]) -> Array:
        """Reverse axes."""

    def pad_planes(self, array: Array, *, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
        """Add zeros around the last two axes."""

    def resize_planes(self, array: Array, plane: tuple[int, int]) -> Array:
        """Resize the last two axes of (output, z, y, x) linearly, with the outer borders aligned."""

    def lerp(self, start: Array, end: Array, weight: Any) -> Array:
        """Return `start + weight * (end - start)`."""

    def exp(self, array: Array) -> Array:
        """Return the exponential."""

    def softmax(self, array: Array) -> Array:
        """Return the softmax over the first axis."""

    def sigmoid(self, array: Array) -> Array:
        """Return the logistic function."""

    def entropy_terms(self, array: Array) -> Array:
        """Return -p log p, and 0 for p = 0."""

    def argmax(self, array: Array) -> Array:
        """Return the index of the largest value along the first axis, of type uint8."""

    def look_up(self, table: Array, places: Array) -> Array:
        """Return the entries of a table at the places of type uint8."""

    def where(self, mask: Array, value: int, array: Array) -> Array:
        """Return a label map with a value in a mask."""

    def all_finite(self, array: Array) -> bool:
        """Return whether all values are finite."""

    def autocast(self, dtype: Any) -> AbstractContextManager[object]:
        """Return a context in which networks compute in another type. `None`: float32."""

    def gpu_memory(self) -> int | None:
        """Return the free memory of a GPU with CUDA in bytes. `None`: another device."""

    def on_host(self) -> "Arrays":
        """Return the operations on arrays in the memory of the host."""


class NumpyArrays:
    """Operations on arrays of NumPy."""

    def zeros(self, shape: Sequence[int], *, half: bool = False) -> np.ndarray:
        """See `Arrays`."""
        return np.zeros(tuple(shape), dtype=np.float16 if half else np.float32)

    def of(self, values: Any) -> np.ndarray:
        """See `Arrays`."""
        return np.asarray(values, dtype=np.float32)

    def place(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return array

    def to_numpy(self, array: np.ndarray, *, half: bool = False) -> np.ndarray:
        """See `Arrays`."""
        return array.astype(np.float16) if half else array

    def single(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return array.astype(np.float32, copy=False)

    def copy(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return array.copy()

    def stack(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """See `Arrays`."""
        return np.stack(arrays)

    def concatenate(self, arrays: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
        """See `Arrays`."""
        return np.concatenate(arrays, axis=axis)

    def take(self, array: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return array[:, places]

    def flip(self, array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        """See `Arrays`."""
        return np.flip(array, axes)

    def pad_planes(self, array: np.ndarray, *, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """See `Arrays`."""
        return np.pad(array, [*[(0, 0)] * (array.ndim - 2), rows, columns])

    def resize_planes(self, array: np.ndarray, plane: tuple[int, int]) -> np.ndarray:
        """See `Arrays`."""
        return resample_image(array, (array.shape[1], *plane), order=1, separate_z=True)

    def lerp(self, start: np.ndarray, end: np.ndarray, weight: Any) -> np.ndarray:
        """See `Arrays`."""
        return start + np.float32(weight) * (end - start)

    def exp(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return np.exp(array)

    def softmax(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return special.softmax(array, axis=0)

    def sigmoid(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return special.expit(array)

    def entropy_terms(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return special.entr(array)

    def argmax(self, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return array.argmax(0).astype(np.uint8)

    def look_up(self, table: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return table[places]

    def where(self, mask: np.ndarray, value: int, array: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return np.where(mask, np.uint8(value), array)

    def all_finite(self, array: np.ndarray) -> bool:
        """See `Arrays`."""
        return bool(np.isfinite(array).all())

    def autocast(self, dtype: None) -> AbstractContextManager[object]:
        """See `Arrays`."""
        return nullcontext()

    def gpu_memory(self) -> None:
        """See `Arrays`."""
        return

    def on_host(self) -> Arrays:
        """See `Arrays`."""
        return self


def arrays_on(device: Any) -> Arrays:
    """Return the operations on arrays of a device.

    Args:
        device: A `torch.device`, or a `Host`.
    """
    if isinstance(device, Host):
        return NumpyArrays()
    from scanseg.inference.torch_arrays import TorchArrays

    return TorchArrays(device)


def arrays_of(array: Array) -> Arrays:
    """Return the operations on arrays of the kind of one.

    Args:
        array: The array.
    """
    return NumpyArrays() if isinstance(array, np.ndarray) else arrays_on(array.device)


def without_gradients(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Record no gradients in a function or a generator.

    Without PyTorch in the process, nothing is recorded.

    Args:
        function: The function.
    """

    @functools.wraps(function)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if "torch" not in sys.modules:
            return function(*arguments, **options)
        import torch

        return torch.inference_mode()(function)(*arguments, **options)

    return run
