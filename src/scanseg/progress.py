"""Progress updates. The library itself prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ProgressUpdate:
    """State of a long call."""

    task: str
    """Name of the work in a word or two, such as `checking` or `training`."""
    done: int
    """Number of finished units."""
    total: int
    """Total number of units."""
    detail: str = ""
    """Further text, such as the current case, the loss or the score."""
    unit: Literal["things", "seconds"] = "things"
    """`seconds` if a time limit ends the work."""
    warnings: tuple[str, ...] = ()
    """Unusual properties of the input that do not prevent the work. Most updates have none."""
    notes: tuple[str, ...] = ()
    """Facts to show once, such as the device and the size of a network. Most updates have none."""


ProgressCallback = Callable[[ProgressUpdate], None]
"""Called with each progress update."""

ProgressChoice = ProgressCallback | bool
"""Callback of progress updates. True: show them on stderr. False: ignore them."""


def ignore_progress(update: ProgressUpdate) -> None:
    """Ignore a progress update.

    Args:
        update: The progress update.
    """


@dataclass
class WarningCollector:
    """Progress callback that keeps the warnings and passes every update on."""

    progress: ProgressCallback
    """Called with each progress update."""
    warnings: list[str] = field(default_factory=list)
    """Warnings so far, each once."""

    def __call__(self, update: ProgressUpdate) -> None:
        """Keep the warnings of an update.

        Args:
            update: The progress update.
        """
        self.warnings += [warning for warning in update.warnings if warning not in self.warnings]
        self.progress(update)
