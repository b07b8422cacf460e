"""Availability of Triton, the precision of its products, and device selection.

Modules with kernels import Triton at their head. They are imported on first use, inside custom operators, so that a
machine without Triton can import everything else.
"""

import functools
import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from scanseg.ops._support.dispatch import Backend

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MISSING: str | None = (
    None
    if importlib.util.find_spec("triton") is not None
    else "Triton is not installed. PyTorch for CUDA on Linux includes it; elsewhere: pip install triton"
)

on_first_run: list[Callable[[], None]] = []
"""Functions to call before the next kernels run. They empty the list (see `first_use`)."""

INTERPRETED: bool = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether Triton runs kernels in its interpreter, on the CPU, for tests. Read once, as in Triton itself."""


def refuses(*tensors: Tensor | None) -> str | None:
    """Return why Triton cannot run a call with these tensors, or `None`."""
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cuda" and not (INTERPRETED and tensor.device.type == "cpu"):
            return f"Triton kernels run on CUDA devices, got a tensor on {tensor.device}"
        if tensor.dtype == torch.float64 and not INTERPRETED:
            return "Triton kernels compute in float32, got a float64 tensor"
    return None


def dot_precision(tensor: Tensor) -> str:
    """Return the precision of products of float32 matrices.

    It is `tf32` if PyTorch's settings allow that, else `tf32x3`. It is `ieee` for float64 and in the interpreter.

    Args:
        tensor: An operand of the product.
    """
    if INTERPRETED or tensor.dtype == torch.float64:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def on_its_device(body: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run an operator's body on the device of its first tensor.

    Triton launches on the current device, whatever device the tensors are on. With this decorator neither callers nor
    single operators select the device.

    Args:
        body: The computation of the custom operator.
    """

    @functools.wraps(body)
    def launch(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        for check in tuple(on_first_run):
            check()
        # `torch.cuda.device` takes longer than a launch, and is rarely needed.
        if _is_current(arguments):
            return body(*arguments, **options)
        with current_device(*arguments):
            return body(*arguments, **options)

    return launch


def _is_current(arguments: tuple[object, ...]) -> bool:
    """Return whether the first tensor is on the current GPU."""
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    return first.is_cuda and first.get_device() == torch.cuda.current_device()


def current_device(*arguments: object) -> AbstractContextManager[object]:
    """Return a context that selects the device of the first tensor argument."""
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def as_triton_backend(run: Callable[..., Tensor]) -> Backend:
    """Create the Triton backend of an operator.

    In the interpreter the backend runs only calls that select it by name.

    Args:
        run: See `Backend`.
    """
    return Backend(run, refuses, MISSING, by_name_only=INTERPRETED, custom=True)
