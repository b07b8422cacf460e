"""Running of compiled CPU kernels on as many threads as PyTorch uses.

The threads are our own instead of numba's. Its OpenMP layer ends a forked process, and its portable layer ends a
process that calls it from two threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

MISSING = (
    None if find_spec("numba") else 'numba is not installed. Install it with: pip install "scanseg[cpu]"'
)
"""Why compiled kernels cannot run on this machine, or `None` if they can."""

LANES = 16
"""Channels of one task, which a compiled kernel processes together."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def refuses(first: Tensor, *others: Tensor | None) -> str | None:
    """Return why compiled CPU kernels cannot run on tensors, or `None`.

    The tensors are on one device, which is checked before.
    """
    if first.device.type != "cpu":
        return f"expected tensors on the CPU, got tensors on {first.device}"
    for tensor in (first, *others):
        if tensor is not None and tensor.dtype not in _DTYPES:
            return f"expected float16, bfloat16, float32 or float64, got {tensor.dtype}"
    return None


def run_tasks(kernel: Callable[..., None], num_tasks: int, *arguments: Any) -> None:
    """Run a kernel on threads, each task once.

    Each thread calls `kernel(*arguments, first, stride)`.

    Args:
        kernel: A function that releases the interpreter lock and runs the tasks first, first + stride, ... A task
            writes nothing that another task reads or writes, so results do not depend on the number of threads.
        num_tasks: Number of tasks.
        *arguments: The kernel's other arguments.
    """
    threads = min(torch.get_num_threads(), num_tasks)
    if threads == 1:
        kernel(*arguments, 0, 1)
        return
    # The calling thread is one of the threads.
    pool = _pool(os.getpid(), torch.get_num_threads() - 1)
    futures = [pool.submit(kernel, *arguments, first, threads) for first in range(1, threads)]
    try:
        kernel(*arguments, 0, threads)
    finally:
        for future in futures:
            future.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Create the threads once per process.

    A forked process inherits no threads and creates its own.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="scanseg-kernel")
