"""Running compiled CPU kernels: whether numba is there, and one kernel on as many threads as PyTorch uses.

Threads of our own instead of numba's: its OpenMP layer ends a process that was forked, its portable one a process
that calls it from two threads.
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
    None if find_spec("numba") else 'numba is not installed; install it with: pip install "scanseg[cpu]"'
)
"""Why no compiled kernel can run on this machine, or None."""

LANES = 16
"""Channels that a compiled kernel works on together: those of one task."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def refuses(first: Tensor, *others: Tensor | None) -> str | None:
    """Say why compiled CPU kernels cannot serve tensors (their devices were found to agree), or None."""
    if first.device.type != "cpu":
        return f"the tensors are on {first.device}, not on the CPU"
    for tensor in (first, *others):
        if tensor is not None and tensor.dtype not in _DTYPES:
            return f"it computes no {tensor.dtype}"
    return None


def run_tasks(kernel: Callable[..., None], num_tasks: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, first, stride)` on threads, so that together they do each task once.

    Args:
        kernel: Releases the interpreter's lock; does the tasks first, first + stride, ...; a task writes nothing that
            another one reads or writes, so that results do not depend on the number of threads.
        num_tasks: Number of tasks.
        *arguments: The kernel's other arguments.
    """
    threads = min(torch.get_num_threads(), num_tasks)
    if threads == 1:
        kernel(*arguments, 0, 1)
        return
    # The calling thread is one of them.
    pool = _pool(os.getpid(), torch.get_num_threads() - 1)
    futures = [pool.submit(kernel, *arguments, first, threads) for first in range(1, threads)]
    try:
        kernel(*arguments, 0, threads)
    finally:
        for future in futures:
            future.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Keep threads from call to call; a forked process has none and makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="scanseg-kernel")
