"""Demo: a small network learns the tissues of a brain template."""

from scanseg.demo.run import run

__all__ = [
    "run",
]
