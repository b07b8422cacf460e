"""What every operator with Triton kernels asks: whether Triton serves here, and how precise its products are.

The kernels' modules import Triton at their head and are themselves imported on first use, inside custom operators: a
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
    else "Triton is not installed (it comes with PyTorch for CUDA on Linux; elsewhere: pip install triton)"
)

INTERPRETED: bool = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether Triton runs kernels in its interpreter, on the CPU: for tests. Read once, as Triton itself does."""


def refuses(*tensors: Tensor | None) -> str | None:
    """Say in words why Triton cannot serve a call with these tensors, or None if it can."""
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cuda" and not (INTERPRETED and tensor.device.type == "cpu"):
            return f"Triton kernels run on CUDA devices, and a tensor is on {tensor.device}"
        if tensor.dtype == torch.float64 and not INTERPRETED:
            return "Triton kernels compute in float32, and a tensor is float64"
    return None


def dot_precision(tensor: Tensor) -> str:
    """Return how products of float32 matrices are computed: `tf32` only where PyTorch's settings allow it.

    Args:
        tensor: An operand; float64 and the interpreter use `ieee`.
    """
    if INTERPRETED or tensor.dtype == torch.float64:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def on_its_device(body: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the body of a custom operator launch its kernels on the device of its first tensor.

    Triton launches on the current device, whatever device the tensors are on. Neither a caller nor a single operator
    has to think of that.

    Args:
        body: What the custom operator computes.
    """

    @functools.wraps(body)
    def launch(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with current_device(*arguments):
            return body(*arguments, **options)

    return launch


def current_device(*arguments: object) -> AbstractContextManager[object]:
    """Return a context in which the device of the first tensor among the arguments is the current one."""
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def as_triton_backend(run: Callable[..., Tensor]) -> Backend:
    """Return the backend that runs an operator by Triton; in the interpreter it serves only where it is asked for.

    Args:
        run: See `Backend`.
    """
    return Backend(run, refuses, MISSING, by_name_only=INTERPRETED)
