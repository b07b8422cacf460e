"""A job in a process of a cluster."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from scanseg.errors import ScansegError
from scanseg.progress import ProgressUpdate
from scanseg.runtime import Job, RunContext

_SEND_SECONDS = 2.0
"""Time between two progress updates of a job."""


class Messages(Protocol):
    """Way of messages to the command."""

    def put(self, message: tuple[str, tuple[str, ...]], *, block: bool) -> None:
        """Send a detail of progress and warnings."""


def run_job(
    job: Job,
    device: str,
    num_workers: int | None,
    num_threads: int,
    messages: Messages,
    should_stop: Callable[[], int | None],
) -> str | None:
    """Run a job.

    Args:
        job: The job.
        device: Name of the device.
        num_workers: Processes that read cases.
        num_threads: Threads of the computation on a CPU.
        messages: Receives warnings and details of progress.
        should_stop: A signal number stops the job, which saves its state.

    Returns:
        The reason of a failure, or `None`.
    """
    import torch

    torch.set_num_threads(num_threads)
    sender = _Sender(job.name, messages)
    context = RunContext(
        device=device, num_workers=num_workers, progress=sender.report, should_stop=should_stop
    )
    try:
        job.run(context)
    except ScansegError as error:
        return str(error)
    except Exception:
        return traceback.format_exc().strip()
    return None


@dataclass
class _Sender:
    """Send warnings and details of progress to the parent process."""

    name: str
    messages: Messages
    last_sent: float = float("-inf")

    def report(self, update: ProgressUpdate) -> None:
        """Send the warnings, and the detail if a message is due."""
        is_due = update.detail and time.monotonic() - self.last_sent >= _SEND_SECONDS
        if not (update.warnings or is_due):
            return
        detail = update.detail if update.task == "training" else f"{update.task} {update.detail}"
        with suppress(Exception):  # progress is lost with its queue, the job goes on
            self.messages.put((f"{self.name}: {detail}", update.warnings), block=False)
        self.last_sent = time.monotonic()
