"""Compilation of a training's GPU kernels while its images are prepared."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scanseg.ops import cores_for_compiling, start_compile_processes
from scanseg.preprocessing import import_array_library
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from scanseg.training.warm_up import can_compile, warm_up

_LOGGER = logging.getLogger(__name__)

_SECONDS_BETWEEN_UPDATES = 0.2

_last: list[threading.Thread] = []
"""The last thread of this process. It may still run after a training that failed."""


def expect_compiling(context: RunContext) -> None:
    """Start the processes that compile kernels, which takes seconds.

    Args:
        context: The device of the training. Without CUDA and Triton nothing is started.
    """
    if context.distributed.world_size == 1 and can_compile(context.torch_device):
        start_compile_processes(cores_for_compiling())


@contextmanager
def compiled_early(plan: Plan, *, context: RunContext) -> Iterator[None]:
    """Compile the GPU kernels of a training while the block runs.

    Preparing images keeps worker processes busy. Meanwhile a thread runs a step of random images, as `warm_up` does,
    and checks the kernels. The end of the block waits for it and reports the progress, unless the block raises an
    error. Before, it imports the library of the arrays, which the training reads next. Errors of the thread are logged
    at the level `DEBUG`: the training compiles the remaining kernels itself, and meets the same errors.

    Several processes of one training share the compiling of its first step instead.

    Args:
        plan: The plan.
        context: The device of the training. Without CUDA and Triton nothing is compiled.
    """
    if context.distributed.world_size > 1 or not can_compile(context.torch_device):
        yield
        return
    updates: list[ProgressUpdate] = []
    earlier = tuple(_last)

    def compile_all() -> None:
        for other in earlier:
            other.join()  # it restores the random generators at its end, which must not happen in the training
        try:
            warm_up([plan], purposes=("training",), context=context.with_progress(updates.append))
        except Exception as error:
            _LOGGER.debug("kernels are compiled at the first step: %s", error)

    thread = threading.Thread(target=compile_all, name="early compilation")
    thread.start()
    _last[:] = [thread]
    yield
    import_array_library()
    shown = len(updates)
    while thread.is_alive() and not context.should_stop():
        thread.join(_SECONDS_BETWEEN_UPDATES)
        if len(updates) > shown:
            shown = len(updates)
            context.progress(updates[-1])
