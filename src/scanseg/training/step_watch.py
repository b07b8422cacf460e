"""Warnings about long trainings and busy processors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scanseg.messages import counted, format_duration

_SECONDS = 10.0
"""Time of steps that is measured before a warning."""
_LONG_SECONDS = 24 * 3600.0
"""Expected time of a training with a warning."""
_BUSY_RATIO = 2.0
"""Ratio of time to processor time with a warning. Undisturbed steps have at most 1."""


@dataclass
class StepWatch:
    """Time of the steps of a training.

    The first step is left out, since it compiles and allocates.

    Args:
        on_cpu: The steps run on the processors, whose time is measured too.
        clock: Function that returns the time in seconds.
        processor_clock: Function that returns the processor time of the process in seconds.
    """

    on_cpu: bool
    clock: Callable[[], float] = time.monotonic
    processor_clock: Callable[[], float] = time.process_time
    num_steps: int = -1
    """Measured steps. -1: the first step is not done."""
    seconds: float = 0.0
    """Their time in seconds."""
    processor_seconds: float = 0.0
    """Their processor time in seconds, over all threads."""
    _given: set[str] = field(default_factory=set)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the step in the block."""
        start, processor_start = self.clock(), self.processor_clock()
        yield
        self.num_steps += 1
        if self.num_steps > 0:
            self.seconds += self.clock() - start
            self.processor_seconds += self.processor_clock() - processor_start

    def long_training(self, *, epochs: int, iterations: int, num_left: int) -> list[str]:
        """Return a warning about a training of days.

        Args:
            epochs: Planned epochs.
            iterations: Steps per epoch.
            num_left: Steps that are left.

        Returns:
            The warning, once.
        """
        if self.seconds < _SECONDS or not self._is_first("long"):
            return []
        each = self.seconds / self.num_steps
        if each * num_left < _LONG_SECONDS:
            return []
        expected = f"{each * num_left / 86400:.1f} days"
        return [
            f"{counted(epochs, 'epoch')} of {counted(iterations, 'step')} take about {expected}, since a step takes "
            f"{each:.2g} s on this device. Stop by Ctrl-C, and limit the time by --max-minutes or the network by "
            f"--size small"
        ]

    def busy_processors(self, *, num_threads: int) -> list[str]:
        """Return a warning if other programs use the processors.

        Args:
            num_threads: Threads of the steps.

        Returns:
            The warning, once.
        """
        if not self.on_cpu or self.seconds < _SECONDS:
            return []
        if self.seconds < _BUSY_RATIO * self.processor_seconds or not self._is_first("busy"):
            return []
        return [
            f"{counted(self.num_steps, 'step')} took {format_duration(self.seconds)} but only "
            f"{format_duration(self.processor_seconds)} of processor time on {counted(num_threads, 'thread')}: other "
            f"programs use the processors. Stop them, or use fewer threads by the variable OMP_NUM_THREADS"
        ]

    def _is_first(self, name: str) -> bool:
        """Return whether a warning is considered for the first time."""
        first = name not in self._given
        self._given.add(name)
        return first
