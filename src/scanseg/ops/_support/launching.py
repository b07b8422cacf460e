"""How every operator launches its Triton kernels, and how kernels are compiled before they are first launched.

Triton compiles a kernel at its first launch, one after the other. A network has dozens, a new machine has cores:
inside `compile_ahead` nothing is launched, but compiled, in threads, while the pass goes on to ask for the next.
"""

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from scanseg.ops._support.triton import INTERPRETED, MISSING

MAX_THREADS = 16
"""Most threads that compile: a network asks for a few dozen kernels."""


class Kernel(Protocol):
    """What is asked of a function under `triton.jit`."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        """Return what launches the kernel on a grid."""

    def warmup(self, *args: Any, grid: tuple[int, ...], **options: Any) -> Any:
        """Compile the kernel as a launch with these arguments would."""


def launch(kernel: Kernel, grid: tuple[int, ...]) -> Callable[..., Any]:
    """Return what launches a kernel on a grid; within `compile_ahead`, what has it compiled instead.

    Args:
        kernel: The kernel.
        grid: Number of programs along up to three axes.
    """
    if _ahead is None or not _ahead.serves_this_thread():
        return kernel[grid]
    return _ahead.compiles(kernel, grid)


@contextmanager
def compile_ahead(
    num_threads: int,
    *,
    backward_on: torch.device | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[None]:
    """Have the kernels of a pass compiled, in threads, in place of launching them.

    What the pass computes is worthless: results of kernels are memory as it was found. Every launch has the arguments
    of the real one, so that the same pass compiles nothing afterwards. Leaving waits for all kernels. In Triton's
    interpreter, and without Triton, a pass runs as ever.

    Launches of this thread are meant, and those of its backward passes, which autograd runs in a thread of its own for
    each device; other threads go on launching. Of several threads that compile ahead each waits for the one before.

    Args:
        num_threads: Threads that compile.
        backward_on: The device of backward passes in the block; None: there are none.
        progress: Told of how many kernels of how many are compiled, while leaving waits.

    Raises:
        Exception: What Triton raised for a kernel that cannot be compiled.
    """
    global _ahead
    if INTERPRETED or MISSING is not None:
        yield
        return
    if _ahead is not None and _ahead.serves_this_thread():
        raise RuntimeError("compile_ahead is entered within itself; the outer one has all kernels compiled.")
    threads = {threading.get_ident()} | ({_thread_of_backward(backward_on)} if backward_on else set())
    with _one_at_a_time, ThreadPoolExecutor(num_threads, thread_name_prefix="compile") as pool:
        _ahead = ahead = _Ahead(pool, threads)
        try:
            try:
                yield
            finally:
                _ahead = None
            ahead.wait(progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def cores_for_compiling(*, num_sharing: int = 1) -> int:
    """Return how many threads may compile on this machine.

    Args:
        num_sharing: Processes on this machine that compile at the same time.
    """
    return max(1, min((os.cpu_count() or 1) // num_sharing, MAX_THREADS))


class _Ahead:
    """The kernels that are being compiled, and the threads whose launches are held back."""

    def __init__(self, pool: ThreadPoolExecutor, threads: set[int]) -> None:
        from triton import AsyncCompileMode

        self._pool = pool
        self._threads = threads
        self._futures: list[Future[Any]] = []
        self._mode = AsyncCompileMode(self)
        # Triton's mode holds where a context variable has it; in this context it does, for any thread.
        self._context = contextvars.copy_context()
        self._context.run(self._mode.__enter__)

    def serves_this_thread(self) -> bool:
        """Whether launches of the calling thread are held back."""
        return threading.get_ident() in self._threads

    def compiles(self, kernel: Kernel, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return what submits a kernel. The arguments' types are read now: no tensor is kept."""

        def submit(*args: Any, **options: Any) -> None:
            self._context.copy().run(kernel.warmup, *args, grid=grid, **options)

        return submit

    def submit(self, compile_kernel: Callable[[], Any]) -> "Future[Any]":
        """Compile a kernel, as Triton's mode asks of its executor, once for a set of types."""
        self._futures.append(self._pool.submit(compile_kernel))
        return self._futures[-1]

    def wait(self, progress: Callable[[int, int], None]) -> None:
        """Wait for all kernels, and let Triton find them at their launch."""
        for done, _ in enumerate(as_completed(self._futures), start=1):
            progress(done, len(self._futures))
        self._context.run(self._mode.__exit__, None, None, None)


_ahead: _Ahead | None = None
_one_at_a_time = threading.Lock()


def _thread_of_backward(device: torch.device) -> int:
    """Return the thread in which autograd runs backward on a device."""
    found: list[int] = []
    with torch.inference_mode(mode=False), torch.enable_grad():
        value = torch.zeros((), device=device, requires_grad=True) * 1
        value.register_hook(lambda gradient: found.append(threading.get_ident()))
        value.backward()
    return found[0]
