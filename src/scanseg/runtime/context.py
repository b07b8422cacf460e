"""Settings of every long-running call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.runtime.distributed import SINGLE_PROCESS, Distributed
from scanseg.runtime.workers import choose_workers

if TYPE_CHECKING:
    import torch

    from scanseg.runtime.engine import Engine

StopCallback = Callable[[], int | None]
"""Returns the number of the received stop signal, or `None` to continue."""


def never_stop() -> int | None:
    """Return `None`: continue."""
    return None


@dataclass(frozen=True)
class RunContext:
    """Device, worker processes, progress, stop request and distributed processes.

    Every call that takes seconds or longer has a `context` argument. The default computes on the best available device,
    reads cases in one process per core, reports no progress and never stops early.

    Examples:
        >>> context = RunContext(device="cpu", num_workers=0)
        >>> context.torch_device
        device(type='cpu')
        >>> context.workers
        0
        >>> context.with_progress(print).progress is print
        True
    """

    device: str = "auto"
    """Name of the device: `cpu`, `cuda`, `cuda:N` (the N-th GPU from 0), `mps`, or `auto` for the first available of
    `cuda`, `mps` and `cpu`."""
    num_workers: int | None = None
    """Processes that read cases. `None`: one per core, at most 16, and 0 for small data sets (`for_images`).
    0: this process reads the cases."""
    progress: ProgressCallback = ignore_progress
    """Called with each progress update."""
    should_stop: StopCallback = never_stop
    """Called between units of work, such as cases and iterations. A signal number ends the call after a checkpoint."""
    distributed: Distributed = SINGLE_PROCESS
    """Processes of the same training, started by `torchrun`. Defaults to this process only."""
    engine: "Engine | None" = None
    """Cluster that runs cases and jobs. `None`: this machine runs them."""

    @cached_property
    def torch_device(self) -> "torch.device":
        """Device of the name.

        Raises:
            UsageError: The name is unknown, or the device is not available.
        """
        from scanseg.runtime.device import choose_device

        return choose_device(self.device)

    @property
    def workers(self) -> int:
        """Number of worker processes, at least 0."""
        return choose_workers(self.num_workers)

    def for_images(self, image_bytes: int) -> "RunContext":
        """Choose 0 workers for small data sets, unless a number was given.

        Args:
            image_bytes: Size of all image files in bytes. Below 4 MiB, reading takes less time than starting workers.

        Returns:
            A context with a number of workers. On a cluster the context is unchanged.
        """
        if self.engine is not None:
            return self
        return replace(self, num_workers=choose_workers(self.num_workers, image_bytes=image_bytes))

    def with_progress(self, progress: ProgressCallback) -> "RunContext":
        """Return a context with another progress callback.

        Args:
            progress: Called with each progress update.
        """
        return replace(self, progress=progress)

    def report_warnings(self, warnings: Sequence[str]) -> None:
        """Report warnings about the input to the progress callback.

        Args:
            warnings: The warnings. Without any, no update is sent.
        """
        if warnings:
            self.progress(ProgressUpdate("checking", 1, 1, warnings=tuple(warnings)))
