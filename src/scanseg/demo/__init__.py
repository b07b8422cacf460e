"""A first result in minutes: a small network learns the tissues of a real brain that comes inside a package."""

from scanseg.demo.run import DemoResult, run

__all__ = ["DemoResult", "run"]
