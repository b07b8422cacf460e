"""Demo: small networks learn the tissues of a brain template."""

from scanseg.demo.run import run

__all__ = [
    "run",
]
