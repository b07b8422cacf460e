"""Which device computes, and in which precision."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from scanseg.errors import UsageError
from scanseg.messages import counted

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:N` (the N-th GPU from 0), `mps`, or `auto`: the first of `cuda`, `mps` and
            `cpu` that is there. A device of torch is as its name.

    Raises:
        UsageError: The name is unknown, or the device is not there; the reason is said.
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not index.isdecimal())):
        raise UsageError(f"device {name!r} is unknown; choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        _require_cuda(name, int(index) if colon else 0)
    if kind == "mps" and not _has_mps():
        raise UsageError(f"device {name!r} is not there: {_missing_mps()}; choose auto or cpu")
    return torch.device(name)


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the type to which `torch.autocast` lowers products, or None where nothing is lowered.

    Args:
        device: The device that computes.
        precision: A plan's `training.precision`; `auto` is bfloat16 on a CUDA GPU that computes in it, else
            float32.

    Raises:
        UsageError: The precision was asked for by name, and the device does not compute in it.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision!r} is unknown; choose {', '.join(get_args(Precision))}")
    if precision == "float32":
        return None
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and _has_bfloat16(device) else None
    if precision == "bfloat16":
        if device.type == "cuda" and not _has_bfloat16(device):
            raise UsageError(
                f"precision bfloat16 is not computed by {device} ({torch.cuda.get_device_name(device)}); "
                "choose float16 or float32"
            )
        return torch.bfloat16
    if device.type == "cpu":
        raise UsageError("precision float16 is not for the cpu; choose bfloat16 or float32")
    return torch.float16


@contextmanager
def warm_up(device: torch.device | None) -> Iterator[None]:
    """Let a GPU load its libraries, which takes seconds once in a process, while the block does something else.

    The end of the block waits for it. What fails there is not told of: it fails again where the device is used.

    Args:
        device: With any other than a CUDA GPU, or None, nothing is done.
    """
    if device is None or device.type != "cuda":
        yield
        return
    thread = threading.Thread(target=_wake, args=(device,), name=f"warm-up {device}")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _wake(device: torch.device) -> None:
    """Convolve and multiply something small, for which the libraries of both are loaded."""
    with suppress(RuntimeError), torch.cuda.device(device), torch.inference_mode():
        image = torch.zeros(1, 8, 8, 8, device=device)
        F.conv2d(image, image).matmul(image.new_zeros(1, 8))
        torch.cuda.synchronize(device)


def _require_cuda(name: str, index: int) -> None:
    """Raise the reason for which a GPU cannot be had."""
    if not torch.backends.cuda.is_built():
        reason = f"this torch ({torch.__version__}) is built without CUDA"
    elif not torch.cuda.is_available():
        reason = "torch finds no CUDA GPU or driver"
    elif index >= torch.cuda.device_count():
        reason = f"torch finds {counted(torch.cuda.device_count(), 'GPU')}, numbered from 0"
    else:
        return
    raise UsageError(f"device {name!r} is not there: {reason}; choose auto, cpu or another device")


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _missing_mps() -> str:
    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) is built without MPS"
    return "torch finds no Apple GPU"


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the GPU has bfloat16 units (compute capability 8.0); emulation is slower than float32."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def describe_device(device: torch.device) -> str:
    """Return a device's name and what it is, for records."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)
