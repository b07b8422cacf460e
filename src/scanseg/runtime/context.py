"""The settings that every long-running call needs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime.distributed import SINGLE_PROCESS, Distributed
from scanseg.runtime.workers import choose_workers

if TYPE_CHECKING:
    import torch

StopCallback = Callable[[], int | None]
"""Return the number of the signal that asks to stop, or `None` to go on."""


def never_stop() -> int | None:
    """Go on."""
    return None


@dataclass(frozen=True)
class RunContext:
    """Device, worker processes, progress, stopping and distributed processes of a call."""

    device: str = "auto"
    """Name of the device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`."""
    num_workers: int | None = None
    """Processes that read cases. `None`: one per core, at most 16. 0: work in this process."""
    progress: ProgressCallback = ignore_progress
    """Called with each progress update."""
    should_stop: StopCallback = never_stop
    """Asked between units of work, such as cases and iterations."""
    distributed: Distributed = SINGLE_PROCESS
    """The processes that train together, started by `torchrun`."""

    @cached_property
    def torch_device(self) -> "torch.device":
        """The device.

        Raises:
            UsageError: The name is unknown, or the device is missing.
        """
        from scanseg.runtime.device import choose_device

        return choose_device(self.device)

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return choose_workers(self.num_workers)

    def for_images(self, image_bytes: int) -> "RunContext":
        """Choose no worker processes for small data sets, unless a number was given.

        Args:
            image_bytes: Size of all image files.
        """
        return replace(self, num_workers=choose_workers(self.num_workers, image_bytes=image_bytes))

    def with_progress(self, progress: ProgressCallback) -> "RunContext":
        """Replace the progress callback.

        Args:
            progress: Called with each progress update.
        """
        return replace(self, progress=progress)
