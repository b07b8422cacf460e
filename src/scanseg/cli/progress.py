"""Progress on stderr: bars in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from scanseg.cli.console import format_duration, print_warnings
from scanseg.progress import ProgressCallback, ProgressUpdate

SECONDS_BETWEEN_LINES = 10.0
SILENT_SECONDS = 2.0
"""Shorter tasks print no lines if stderr is not a terminal."""


@contextmanager
def show_progress() -> Iterator["WarningLines"]:
    """Return a progress callback that shows updates while the block runs."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield WarningLines(_ProgressBars(bars))
    else:
        yield WarningLines(ProgressLines(sys.stderr))


@dataclass
class WarningLines:
    """Progress callback that prints each warning once, and passes every update on.

    Args:
        progress: Callback that shows the updates.
    """

    progress: ProgressCallback
    _printed: set[str] = field(default_factory=set)

    def __call__(self, update: ProgressUpdate) -> None:
        """Print the warnings of an update, and show it."""
        self.print_new(update.warnings)
        self.progress(update)

    def print_new(self, warnings: Iterable[str]) -> None:
        """Print the warnings that are not printed yet.

        Args:
            warnings: The warnings.
        """
        new = [warning for warning in dict.fromkeys(warnings) if warning not in self._printed]
        self._printed.update(new)
        print_warnings(new)


@dataclass
class Pace:
    """Speed of a task since its first update."""

    first_done: int
    """Units that were done at the first update."""
    first_time: float
    """Time of the first update in seconds."""

    def describe(self, update: ProgressUpdate, *, now: float) -> str:
        """Describe the rate and the time left.

        The text is empty before the first unit is done. A task counted in seconds has no rate.

        Args:
            update: The current update.
            now: The current time in seconds.
        """
        if update.unit == "seconds":
            return f"{format_duration(update.total - update.done)} left" if update.done < update.total else ""
        done, elapsed = update.done - self.first_done, now - self.first_time
        if done <= 0 or elapsed <= 0:
            return ""
        rate = done / elapsed
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        left = (update.total - update.done) / rate
        return f"{speed}, {format_duration(left)} left" if left > 0 else speed


@dataclass
class ProgressLines:
    """Progress callback that prints lines.

    A task has a line every ten seconds and at its end.

    Args:
        stream: Output of the lines.
        clock: Function that returns the time in seconds.
    """

    stream: TextIO
    clock: Callable[[], float] = time.monotonic
    _paces: dict[str, Pace] = field(default_factory=dict)
    _last_time: float = float("-inf")

    def __call__(self, update: ProgressUpdate) -> None:
        """Show an update."""
        now = self.clock()
        pace = self._paces.setdefault(update.task, Pace(update.done, now))
        finished = update.done >= update.total
        if finished:
            del self._paces[update.task]
        due = finished or now - self._last_time >= SECONDS_BETWEEN_LINES
        if due and now - pace.first_time > SILENT_SECONDS:
            parts = (f"{update.task} {_amount(update)}", pace.describe(update, now=now))
            self.stream.write("  ".join(part for part in (*parts, update.detail) if part) + "\n")
            self.stream.flush()
            self._last_time = now


@dataclass
class _ProgressBars:
    """Progress callback that draws a bar for each task."""

    bars: Bars
    _open: dict[str, tuple[TaskID, Pace]] = field(default_factory=dict)

    def __call__(self, update: ProgressUpdate) -> None:
        now = time.monotonic()
        if update.task not in self._open:
            bar = self.bars.add_task(update.task, total=update.total, amount="", pace="", detail="")
            self._open[update.task] = (bar, Pace(update.done, now))
        bar, pace = self._open[update.task]
        self.bars.update(
            bar,
            total=update.total,
            completed=update.done,
            amount=_amount(update),
            pace=pace.describe(update, now=now),
            detail=update.detail,
        )
        if update.done >= update.total:
            del self._open[update.task]


def _amount(update: ProgressUpdate) -> str:
    """Format the finished part and the total of a task."""
    text = format_duration if update.unit == "seconds" else str
    return f"{text(update.done)}/{text(update.total)}"


def _bars() -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[pace]}", markup=False),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=4,
    )
