"""Progress on stderr: bars in a terminal and in notebooks, lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from scanseg.messages import first_lines, format_duration
from scanseg.progress import ProgressCallback, ProgressChoice, ProgressUpdate, ignore_progress


class Lines(Protocol):
    """Output of lines, such as a text file."""

    def write(self, line: str, /) -> int:
        """Write a line with its end."""

    def flush(self) -> None:
        """Make the written lines visible."""


SECONDS_BETWEEN_LINES = 8.0
"""With a step of work in between, lines come at least every ten seconds."""
SILENT_SECONDS = 2.0
"""Shorter tasks print no lines if stderr is not a terminal."""


@contextmanager
def display(progress: ProgressChoice) -> Iterator[ProgressCallback]:
    """Return the progress callback of a choice.

    Args:
        progress: A callback. True: show updates on stderr. False: ignore them.
    """
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with show_progress() as shown:
            yield shown
    else:
        yield ignore_progress


@contextmanager
def show_progress(work: str | None = None) -> Iterator["PrintedNotes"]:
    """Return a progress callback that shows updates on stderr.

    Args:
        work: Line to print at once, because imports and checks before the first update take seconds. `None`: no line.
    """
    if work is not None:
        sys.stderr.write(work + "\n")
        sys.stderr.flush()
    console = Console(stderr=True)
    if sys.stderr.isatty() or (console.is_jupyter and find_spec("ipywidgets") is not None):
        with _bars(console) as bars:
            yield PrintedNotes(_ProgressBars(bars))
        return
    lines = ProgressLines(sys.stderr)
    with _reminders(lines):
        yield PrintedNotes(lines)


@dataclass
class PrintedNotes:
    """Progress callback that prints each note and warning once.

    Args:
        progress: Callback that shows the updates.
        stream: Output of notes and warnings. `None`: stderr.
    """

    progress: ProgressCallback
    stream: Lines | None = None
    _printed: set[str] = field(default_factory=set)

    def __call__(self, update: ProgressUpdate) -> None:
        """Print the notes and warnings of an update, and show it."""
        self._print(self._new(update.notes))
        self.print_new(update.warnings)
        self.progress(update)

    def print_new(self, warnings: Iterable[str]) -> None:
        """Print new warnings, at most the first twenty.

        Args:
            warnings: The warnings.
        """
        self._print(first_lines([f"warning: {warning}" for warning in self._new(warnings)]))

    def _print(self, lines: Sequence[str]) -> None:
        """Print lines."""
        stream = sys.stderr if self.stream is None else self.stream
        for line in lines:
            stream.write(line + "\n")
        stream.flush()

    def _new(self, texts: Iterable[str]) -> list[str]:
        """Return the texts that are not printed yet."""
        new = [text for text in dict.fromkeys(texts) if text not in self._printed]
        self._printed.update(new)
        return new


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

    A task has a line every eight seconds and at its end.

    Args:
        stream: Output of the lines.
        clock: Function that returns the time in seconds.
    """

    stream: Lines
    clock: Callable[[], float] = time.monotonic
    _started: float = field(init=False)
    _paces: dict[str, Pace] = field(default_factory=dict)
    _last_time: float = float("-inf")
    _last_update: tuple[ProgressUpdate, float] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Note the time of the start."""
        self._started = self.clock()

    def __call__(self, update: ProgressUpdate) -> None:
        """Show an update."""
        with self._lock:
            self._show(update)

    def _show(self, update: ProgressUpdate) -> None:
        now = self.clock()
        self._last_update = (update, now)
        pace = self._paces.setdefault(update.task, Pace(update.done, now))
        finished = update.done >= update.total
        if finished:
            del self._paces[update.task]
        due = finished or now - self._last_time >= SECONDS_BETWEEN_LINES
        if due and now - pace.first_time > SILENT_SECONDS:
            parts = (f"{update.task} {_amount(update)}", pace.describe(update, now=now))
            self._print("  ".join(part for part in (*parts, update.detail) if part))

    def remind(self) -> None:
        """Print a reminder after eight seconds without a line."""
        with self._lock:
            since, event = self._started, "the start"
            if self._last_update is not None:
                update, since = self._last_update
                event = f"{update.task} {_amount(update)}"
            now = self.clock()
            if now - max(self._last_time, since) >= SECONDS_BETWEEN_LINES:
                self._print(f"still working, {format_duration(now - since)} after {event}")

    def _print(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()
        self._last_time = self.clock()


@contextmanager
def _reminders(lines: ProgressLines) -> Iterator[None]:
    """Print reminders from a thread while the block runs."""
    ended = threading.Event()

    def remind() -> None:
        while not ended.wait(1.0):
            lines.remind()

    thread = threading.Thread(target=remind, name="progress reminders", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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


def _bars(console: Console) -> Bars:
    """Return bars with a spinner, which moves during long work."""
    return Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[pace]}", markup=False),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        refresh_per_second=4,
    )
