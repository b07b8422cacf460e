"""Compilation of Triton kernels in forked processes.

Triton translates the Python code of a kernel under the interpreter lock. Threads that compile wait for each other
there, and the pass that requests the kernels waits for them. A forked process has a lock of its own. It leaves the
kernel and its launcher in Triton's cache on disk, from which this process reads them.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn

from scanseg.ops._support.launching_variants import build_launcher

SUPPORTED = sys.platform == "linux" and hasattr(os, "pidfd_open")
"""Whether this system forks processes and can wait for one of them."""

MAX_SECONDS = 120.0
"""Time after which a process is ended. Then this process compiles the kernel itself."""

_state = threading.local()


class _NotCachedError(Exception):
    """A kernel is not in Triton's cache."""


def compile_in_a_process(compile_kernel: Callable[[], Any]) -> Any:
    """Compile a kernel and its launcher in a forked process.

    A kernel in Triton's cache is only read. A process that fails, is killed or takes too long costs only time: this thread then compiles the kernel.

    Args:
        compile_kernel: Triton's function that compiles a kernel, or reads it from the cache. It uses no GPU.

    Returns:
        The compiled kernel.
    """
    if SUPPORTED and _uses_cache():
        _mark_reading()
        try:
            _state.only_cached = True
            kernel = compile_kernel()
        except _NotCachedError:
            _state.only_cached = False
            with suppress(OSError):
                _run_forked(lambda: build_launcher(compile_kernel()))
            kernel = compile_kernel()
        finally:
            _state.only_cached = False
    else:
        kernel = compile_kernel()
    build_launcher(kernel)
    return kernel


def _uses_cache() -> bool:
    from triton import knobs

    return not knobs.compilation.always_compile


@cache
def _mark_reading() -> None:
    """Let Triton stop before it translates a kernel.

    It stops in threads that only look into its cache.
    """
    from triton.compiler import ASTSource

    translate = ASTSource.make_ir

    def make_ir(source: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(_state, "only_cached", False):
            raise _NotCachedError
        return translate(source, *arguments, **options)

    ASTSource.make_ir = make_ir


def _run_forked(work: Callable[[], None]) -> None:
    """Run a function in a forked process, and wait for its end."""
    process = os.fork()
    if process == 0:
        _end_after(work)
    descriptor = os.pidfd_open(process)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(1e3 * MAX_SECONDS):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    finally:
        os.close(descriptor)


def _end_after(work: Callable[[], None]) -> NoReturn:
    """Run a function, and end this process without exit functions."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        work()
    finally:
        os._exit(0)
