"""Launching of Triton kernels, and their compilation ahead of the first launch.

Triton compiles each kernel at its first launch, one after the other. A network has dozens of kernels, and a machine has
several cores. Inside `compile_ahead`, threads and processes compile the kernels of launches instead of running them,
and the pass continues to the next kernel.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import Any, Protocol

import torch

from scanseg.cores import available_cores
from scanseg.ops._support.compile_processes import start_compile_processes
from scanseg.ops._support.compile_requests import request_of
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.launching_variants import (
    USABLE,
    PlannedLaunch,
    build_launcher,
    run_compiled,
)
from scanseg.ops._support.triton import INTERPRETED, MISSING

_LOGGER = logging.getLogger(__name__)

SECONDS_BETWEEN_MESSAGES = 2.0
"""Time between two messages in the log while kernels are compiled."""

MAX_THREADS = 16
"""Maximum number of threads that compile. A network has a few dozen kernels."""

KERNELS_IN_THREADS = 6
"""New kernels of a block that threads compile. Processes compile the others, while those processes start."""


class Kernel(Protocol):
    """Interface of a function under `triton.jit`."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        """Return a function that launches the kernel on a grid."""

    def warmup(self, *args: Any, grid: tuple[int, ...], **options: Any) -> Any:
        """Compile the kernel for a launch with these arguments."""


def launch(kernel: Kernel, grid: tuple[int, ...]) -> Callable[..., Any]:
    """Return a function that launches a kernel on a grid.

    Within `compile_ahead` the function compiles the kernel instead.

    Args:
        kernel: The kernel.
        grid: Number of programs along up to three axes.
    """
    if not is_compiling_ahead():
        return partial(run_compiled, kernel, grid) if USABLE else kernel[grid]
    assert _compilation is not None
    return _compilation.submitter(kernel, grid)


class Launch(PlannedLaunch):
    """A launch whose grid, numbers, constants and dtypes never change.

    Within `compile_ahead` it compiles the kernel instead. Keep one for each combination of dtypes.
    """

    _dtypes: tuple[torch.dtype, ...] | None = None

    def __call__(self, *tensors: torch.Tensor) -> None:
        """Launch the kernel.

        Args:
            *tensors: The first arguments of the kernel, on the current device.
        """
        if _compilation is None and USABLE:
            self.run([tensor.data_ptr() for tensor in tensors], tensors)
        else:
            self._require_same_dtypes(tensors)
            launch(self.kernel, self.grid)(*tensors, *self.numbers, **self.constants)

    def _require_same_dtypes(self, tensors: tuple[torch.Tensor, ...]) -> None:
        """Raise an error if the tensors have other dtypes than before.

        On a GPU, the kernel of the first dtypes would read the others wrongly, and a check would cost time there.
        """
        dtypes = tuple([tensor.dtype for tensor in tensors])
        if self._dtypes not in (None, dtypes):
            raise TypeError(
                f"Launch of {getattr(self.kernel, '__name__', self.kernel)}: expected tensors of {self._dtypes} as "
                f"before, got {dtypes}. Keep one launch for each combination of dtypes."
            )
        self._dtypes = dtypes


def is_compiling_ahead() -> bool:
    """Return whether launches of this thread only compile kernels.

    Example:
        >>> from scanseg.ops import is_compiling_ahead
        >>> is_compiling_ahead()
        False
    """
    return _compilation is not None and _compilation.applies_to_this_thread()


@contextmanager
def compile_ahead(
    num_threads: int,
    *,
    backward_on: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[None]:
    """Compile the kernels of a pass in parallel, without launching them.

    The results of the pass are invalid, because its kernels write nothing. Every launch has the arguments of the real
    pass, so that the same pass compiles nothing afterwards. The end of the block waits for all kernels. In Triton's
    interpreter, and without Triton, the pass runs as usual.

    The block applies to launches of its thread, and to those of its backward passes, which autograd runs in a separate
    thread for each device. Other threads continue to launch. Only one block is active at a time; other threads wait.

    Args:
        num_threads: Number of kernels that are compiled at the same time.
        backward_on: Device of the backward passes in the block. `None`: the block has no backward pass.
        progress: Called with the number of compiled kernels and of all kernels, at the end of the block. `None`: the
            log has a message every two seconds.

    Example:
        >>> import torch
        >>> from scanseg.ops import compile_ahead, cores_for_compiling, instance_norm
        >>> x, weight, bias = torch.randn(1, 3, 8, 8), torch.ones(3), torch.zeros(3)
        >>> with compile_ahead(cores_for_compiling()):
        ...     _ = instance_norm(x, weight, bias)
        >>> instance_norm(x, weight, bias).shape
        torch.Size([1, 3, 8, 8])
    """
    global _compilation
    if INTERPRETED or MISSING is not None:
        yield
        return
    if is_compiling_ahead():
        raise RuntimeError(
            "compile_ahead: expected one block, got a block inside another one. Remove the inner block."
        )
    threads = {threading.get_ident()} | ({_backward_thread(backward_on)} if backward_on else set())
    with _one_at_a_time, ThreadPoolExecutor(num_threads, thread_name_prefix="compile") as pool:
        compilation = _Compilation(pool, threads, num_threads)
        with _messages(compilation) if progress is None else nullcontext():
            _compilation = compilation
            try:
                try:
                    yield
                finally:
                    _compilation = None
                compilation.wait(progress or _ignore)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def compile_also(request: Callable[[], None]) -> None:
    """Run a function in a new thread, whose launches compile too.

    The modes of the calling thread, such as autocast, do not apply. The call ends with the thread. Errors are logged.

    Args:
        request: Function that launches further kernels. The caller is inside `compile_ahead`.
    """
    assert _compilation is not None
    _compilation.run_in_a_thread(request)


def _ignore(done: int, total: int) -> None:
    """Report nothing."""


def can_compile_ahead(tensor: torch.Tensor) -> bool:
    """Return whether a block of `compile_ahead` may start here.

    It may not without Triton, inside another block, under tracing, in the capture of a CUDA graph, in a backward pass
    and in a forked process.

    Args:
        tensor: A tensor of the pass.

    Example:
        >>> import torch
        >>> from scanseg.ops import can_compile_ahead
        >>> can_compile_ahead(torch.ones(1))
        False
    """
    if not tensor.is_cuda or INTERPRETED or MISSING is not None or torch.cuda._is_in_bad_fork():
        return False
    if is_compiling_ahead() or torch.compiler.is_compiling() or is_traced(tensor):
        return False
    return torch._C._current_graph_task_id() == -1 and not torch.cuda.is_current_stream_capturing()


def cores_for_compiling(*, num_sharing: int = 1) -> int:
    """Return the number of threads for `compile_ahead` on this machine.

    Args:
        num_sharing: Number of processes on this machine that compile at the same time.

    Returns:
        At least 1 and at most `MAX_THREADS`.

    Example:
        >>> from scanseg.ops import cores_for_compiling
        >>> 1 <= cores_for_compiling(num_sharing=2) <= cores_for_compiling()
        True
    """
    return max(1, min(available_cores() // num_sharing, MAX_THREADS))


class _Compilation:
    """The kernels in compilation, and the threads that do not launch meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, threads: set[int], num_threads: int) -> None:
        self._pool, self._num_threads = pool, num_threads
        self._threads = threads
        self._futures: list[Future[Any]] = []
        self._mode = self._make_mode()
        self._num_new = count()
        # Triton keeps its mode in a context variable. This context carries it to other threads.
        self._context = contextvars.copy_context()
        self._context.run(self._mode.__enter__)

    def _make_mode(self) -> Any:
        """Return Triton's mode, which also keeps the key of each kernel."""
        from triton import AsyncCompileMode

        compile_keyed = self._compile

        class KeyedMode(AsyncCompileMode):
            def submit(self, key: str, compile_kernel: Callable[[], Any], *others: Any) -> Any:
                return super().submit(key, partial(compile_keyed, key, compile_kernel), *others)

        return KeyedMode(self, ignore_errors=True)

    def applies_to_this_thread(self) -> bool:
        """Return whether launches of the calling thread compile instead."""
        return threading.get_ident() in self._threads

    def submitter(self, kernel: Kernel, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return a function that submits a kernel for compilation.

        The function reads the types of its arguments at once and keeps no tensor.
        """

        def submit(*args: Any, **options: Any) -> None:
            self._context.copy().run(kernel.warmup, *args, grid=grid, **options)

        return submit

    def submit(self, compile_kernel: Callable[[], Any]) -> "Future[Any]":
        """Compile a kernel in the pool, once for each set of types.

        Triton's mode calls this method of its executor.
        """
        self._futures.append(self._pool.submit(compile_kernel))
        return self._futures[-1]

    def _compile(self, key: str, compile_kernel: Callable[[], Any]) -> Any:
        """Compile a kernel with its launcher.

        Another process compiles it if it is one of many. Then this thread only reads it.
        """
        request = request_of(key, compile_kernel)
        if request is not None and next(self._num_new) >= KERNELS_IN_THREADS:
            processes = start_compile_processes(self._num_threads)
            if processes is not None:
                processes.compile(request)
        kernel = compile_kernel()
        build_launcher(kernel)
        return kernel

    def run_in_a_thread(self, request: Callable[[], None]) -> None:
        """Run a function in a new thread, whose launches compile too."""

        def run() -> None:
            self._threads.add(threading.get_ident())
            try:
                request()
            except Exception as error:  # the kernels are compiled at their first launch
                _LOGGER.debug("some kernels are not compiled ahead: %s", error)
            finally:
                self._threads.discard(threading.get_ident())  # a later thread may get the number

        thread = threading.Thread(target=run, name="compile ahead")
        thread.start()
        thread.join()

    def counts(self) -> tuple[int, int]:
        """Return the number of compiled kernels, and of all kernels so far."""
        futures = list(self._futures)
        return sum(future.done() for future in futures), len(futures)

    def wait(self, progress: Callable[[int, int], None]) -> None:
        """Wait for all kernels and register them with Triton."""
        for done, _ in enumerate(as_completed(self._futures), start=1):
            progress(done, len(self._futures))
        self._context.run(self._mode.__exit__, None, None, None)


@contextmanager
def _messages(compilation: _Compilation) -> Iterator[None]:
    """Log the number of compiled kernels every two seconds."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(SECONDS_BETWEEN_MESSAGES):
            # Python shows warnings of programs that set up no log. Otherwise minutes would pass in silence.
            _LOGGER.warning("compiling GPU kernels, once on this machine: %d of %d", *compilation.counts())

    thread = threading.Thread(target=report, name="messages of compile_ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_compilation: _Compilation | None = None
_one_at_a_time = threading.Lock()


def _backward_thread(device: torch.device) -> int:
    """Return the identifier of autograd's backward thread for a device."""
    found: list[int] = []
    with torch.inference_mode(mode=False), torch.enable_grad():
        value = torch.zeros((), device=device, requires_grad=True) * 1
        value.register_hook(lambda gradient: found.append(threading.get_ident()))
        value.backward()
    return found[0]
