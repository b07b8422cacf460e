"""A first result in minutes: a small network learns the tissues of a real brain that comes inside a package."""

from scanseg.demo.run import run

__all__ = [
    "run",
]
