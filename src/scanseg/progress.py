"""How long pieces of work tell their caller how far they have come; the library itself prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ProgressUpdate:
    """One report from a piece of work."""

    task: str
    """What is being done, in a word or two for a person: `checking`, `training` ..."""
    done: int
    """How many of them, or seconds, are done."""
    total: int
    """How many there are in all."""
    detail: str = ""
    """More for a person: the case in work, the loss, the score."""
    unit: Literal["things", "seconds"] = "things"
    """`seconds` where the clock decides when it ends."""


ProgressCallback = Callable[[ProgressUpdate], None]


def ignore_progress(update: ProgressUpdate) -> None:
    """Listen to nothing."""
