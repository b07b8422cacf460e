"""Progress updates. The library itself prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass
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


ProgressCallback = Callable[[ProgressUpdate], None]
"""Called with each progress update."""


def ignore_progress(update: ProgressUpdate) -> None:
    """Ignore a progress update.

    Args:
        update: The progress update.
    """
