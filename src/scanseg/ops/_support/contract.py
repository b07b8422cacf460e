"""What every operator checks about the tensors it is given, before a backend sees them."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from scanseg.errors import InputError


class Expected(NamedTuple):
    """One argument of an operator and what its shape must be.

    Attributes:
        name: The argument's name.
        tensor: The argument.
        axes: Names of the axes, for the message.
        shape: The sizes required by the other arguments.
    """

    name: str
    tensor: Tensor
    axes: str
    shape: tuple[int, ...]


def require_axes(operator: str, name: str, tensor: Tensor, axes: str) -> None:
    """Raise `InputError` unless `tensor` has the axes named (separated by spaces), none of them empty."""
    if tensor.ndim != len(axes.split()) or tensor.numel() == 0:
        raise InputError(
            f"{operator}: {name} has shape {tuple(tensor.shape)}; pass a tensor with the axes ({axes}), none empty."
        )


def require_shapes(operator: str, *arguments: Expected) -> None:
    """Raise one `InputError` that lists every argument with a wrong shape, dtype or device.

    The first argument's device is the one that the others must share.
    """
    wrong = []
    device = arguments[0].tensor.device
    for name, tensor, axes, shape in arguments:
        if tuple(tensor.shape) != shape:
            wrong.append(f"{name} has shape {tuple(tensor.shape)}, not {shape} ({axes})")
        if not tensor.is_floating_point():
            wrong.append(f"{name} has dtype {tensor.dtype}, not a floating one")
        if tensor.device != device:
            wrong.append(f"{name} is on {tensor.device}, {arguments[0].name} on {device}")
    if wrong:
        raise InputError(f"{operator}: {'; '.join(wrong)}. The sizes follow from {arguments[0].name}.")


def state_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of states and sums: float64 if any of the tensors is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which operations keep the dtypes that they are given, on the device of `tensor`."""
    kind = tensor.device.type
    # Tensors without data, on which networks are sized, know no autocast.
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
