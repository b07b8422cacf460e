"""Checks of an operator's tensors, made before the choice of a backend."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from scanseg.errors import InputError


class Expected(NamedTuple):
    """One argument of an operator with its required shape.

    Attributes:
        name: Name of the argument.
        tensor: The argument.
        axes: Names of the axes, for the message.
        shape: The shape that the other arguments require.
    """

    name: str
    tensor: Tensor
    axes: str
    shape: tuple[int, ...]


def require_axes(operator: str, name: str, tensor: Tensor, axes: str) -> None:
    """Check that a tensor has the given axes and is not empty.

    Args:
        operator: Name of the operator, for the message.
        name: Name of the argument, for the message.
        tensor: The argument.
        axes: Names of the axes, separated by spaces.

    Raises:
        InputError: The tensor has another number of axes, or an empty axis.
    """
    if tensor.ndim != axes.count(" ") + 1 or tensor.numel() == 0:
        raise InputError(
            f"{operator}: {name}: expected the axes ({axes}), none empty, got shape {tuple(tensor.shape)}. "
            "Pass a tensor with these axes."
        )


def require_shapes(operator: str, *arguments: Expected) -> None:
    """Check the shapes, dtypes and devices of all arguments.

    All dtypes must be floating. All arguments must be on the device of the first one.

    Raises:
        InputError: At least one argument is wrong. The message lists all faults.
    """
    device = arguments[0].tensor.device
    if all(
        tensor.shape == shape and tensor.device == device and tensor.is_floating_point()
        for _, tensor, _, shape in arguments
    ):
        return
    wrong = []
    for name, tensor, axes, shape in arguments:
        if tuple(tensor.shape) != shape:
            wrong.append(f"{name}: expected shape {shape} ({axes}), got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            wrong.append(f"{name}: expected a floating dtype, got {tensor.dtype}")
        if tensor.device != device:
            wrong.append(f"{name}: expected the device of {arguments[0].name}, {device}, got {tensor.device}")
    if wrong:
        raise InputError(
            f"{operator}: {'; '.join(wrong)}. Match the sizes and the device of {arguments[0].name}."
        )


def state_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of states and sums.

    It is float64 if any of the tensors is float64, else float32.
    """
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context that disables autocast on the device of a tensor.

    Args:
        tensor: A tensor on the device.

    Example:
        >>> import torch
        >>> from scanseg.ops import without_autocast
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), without_autocast(x):
        ...     (x @ x).dtype
        torch.float32
    """
    kind = tensor.device.type
    # The meta device, on which networks are sized without data, has no autocast. A context without effect is left out,
    # because it would be part of an exported graph.
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
