"""Versions of the software that computes, for records."""

import platform

import numpy as np
import torch

from scanseg.version import __version__


def installed_versions() -> dict[str, str]:
    """Return the versions of scanseg, python, torch, numpy and the platform."""
    return {
        "scanseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
