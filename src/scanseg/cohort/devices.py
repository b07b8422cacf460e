"""Workers on several devices of this machine."""

import os
from collections.abc import Sequence
from functools import partial

from scanseg.cohort.model_worker import CALLS_AT_ONCE, ModelChoice, ModelWorker
from scanseg.cohort.pool import Place
from scanseg.cores import choose_threads
from scanseg.inference import is_exported
from scanseg.runtime import ObjectProcess


def device_places(choice: ModelChoice, devices: Sequence[str]) -> list[Place]:
    """Return a place for each device.

    Several workers on the CPU share its threads.

    Args:
        choice: The model.
        devices: Names of devices. A device that is named twice has two workers.

    Raises:
        UsageError: A device is unknown or missing.
    """
    if not is_exported(choice.path):
        from scanseg.runtime import choose_device

        for name in devices:
            choose_device(name)
    num_threads = choose_threads(os.environ)
    num_cpu = sum(name == "cpu" for name in devices)
    return [
        Place(
            name,
            partial(_start, choice, name, max(1, num_threads // num_cpu) if name == "cpu" else num_threads),
        )
        for name in devices
    ]


def _start(choice: ModelChoice, device: str, num_threads: int) -> ObjectProcess:
    """Start a worker."""
    return ObjectProcess(
        ModelWorker, choice, device, num_threads, num_threads=CALLS_AT_ONCE, threads_each=num_threads
    )
