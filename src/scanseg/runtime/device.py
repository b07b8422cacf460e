"""Device and precision of the computation."""

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
    """Return the device of a name, and check that it is available.

    Args:
        name: `cpu`, `cuda`, `cuda:N` (the N-th GPU from 0), `mps`, or `auto` for the first available of `cuda`, `mps`
            and `cpu`. A `torch.device` is checked by its name.

    Returns:
        The device. Nothing is allocated on it.

    Raises:
        UsageError: The name is unknown, or the device is not available. The message holds the reason.

    Examples:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not index.isdecimal())):
        raise UsageError(f"device {name!r} is unknown. Choose auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        _require_cuda(name, int(index) if colon else 0)
    if kind == "mps" and not _has_mps():
        raise UsageError(f"device {name!r} is not available: {_missing_mps()}. Choose auto or cpu.")
    return torch.device(name)


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the dtype of `torch.autocast` for a precision.

    Args:
        device: The device that computes.
        precision: A plan's `training.precision`. `auto` is bfloat16 on a CUDA GPU with bfloat16 units, else float32.

    Returns:
        Dtype of products. `None`: float32, without autocast.

    Raises:
        UsageError: The precision is unknown, or the device does not support it.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision!r} is unknown. Choose {', '.join(get_args(Precision))}.")
    if precision == "float32":
        return None
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and _has_bfloat16(device) else None
    if precision == "bfloat16":
        if device.type == "cuda" and not _has_bfloat16(device):
            raise UsageError(
                f"precision bfloat16 is not supported by {device} ({torch.cuda.get_device_name(device)}). "
                "Choose float16 or float32."
            )
        return torch.bfloat16
    if device.type == "cpu":
        raise UsageError("precision float16 is not supported by cpu. Choose bfloat16 or float32.")
    return torch.float16


@contextmanager
def warm_up(device: torch.device | None) -> Iterator[None]:
    """Load the libraries of a GPU while the block runs.

    Threads load them. Loading takes seconds, once per process. The block waits for it at its end. Errors are ignored:
    they occur again when the device is used.

    Args:
        device: A CUDA GPU. For other devices and `None` nothing is loaded.
    """
    if device is None or device.type != "cuda":
        yield
        return
    threads = [
        threading.Thread(target=_load_libraries, args=(device,), name=f"warm-up {device}"),
        threading.Thread(target=_import_compiler, name="warm-up"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _import_compiler() -> None:
    """Import PyTorch's compiler, which its optimizers import too."""
    with suppress(ImportError):
        import torch._dynamo  # noqa: F401


def _load_libraries(device: torch.device) -> None:
    """Load the libraries for convolutions and products by computing small ones."""
    with suppress(RuntimeError), torch.cuda.device(device), torch.inference_mode():
        image = torch.zeros(1, 8, 8, 8, device=device)
        F.conv2d(image, image).matmul(image.new_zeros(1, 8))
        torch.cuda.synchronize(device)


def _require_cuda(name: str, index: int) -> None:
    """Raise an error with the reason if a GPU is not available."""
    if not torch.backends.cuda.is_built():
        reason = f"this torch ({torch.__version__}) is built without CUDA"
    elif not torch.cuda.is_available():
        reason = "torch finds no CUDA GPU or driver"
    elif index >= torch.cuda.device_count():
        reason = f"torch finds {counted(torch.cuda.device_count(), 'GPU')}, numbered from 0"
    else:
        return
    raise UsageError(f"device {name!r} is not available: {reason}. Choose auto, cpu or another device.")


def _has_mps() -> bool:
    """Return whether an Apple GPU is available."""
    return torch.backends.mps.is_available()


def _missing_mps() -> str:
    """Return the reason why no Apple GPU is available."""
    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) is built without MPS"
    return "torch finds no Apple GPU"


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether the GPU has bfloat16 units (compute capability 8.0).

    Emulation is slower than float32.
    """
    return torch.cuda.get_device_capability(device) >= (8, 0)


def describe_device(device: torch.device) -> str:
    """Return a device with its product name, or its threads.

    Args:
        device: The device.

    Returns:
        Text for records, such as `cuda:0 (NVIDIA H200)` or `cpu (16 threads)`.
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)
