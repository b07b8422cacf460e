"""Limits of a server: sizes, times and places in its queue."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scanseg.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    queue_size: int = 10
    """Most jobs that are uploaded or wait. Further requests get the status 503."""
    upload_bytes: int = 2**30
    """Largest upload in bytes."""
    voxels: int = 2**28
    """Largest image in voxels, all channels together."""
    upload_seconds: float = 300.0
    """Longest upload in seconds."""
    job_seconds: float = 900.0
    """Longest segmentation in seconds, checked between windows."""
    kept_seconds: float = 3600.0
    """Time in seconds after which the files of an ended job are removed."""
    kept_bytes: int = 2**34
    """Most bytes of ended jobs on disk. The oldest are removed first."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise UsageError(f"{field.name}: expected a number above 0, got {value}.")

    @property
    def unpacked_bytes(self) -> int:
        """Most bytes of a zip file after decompression.

        4 for each voxel, and 64 MiB for headers.
        """
        return 4 * self.voxels + 2**26


def make_limits(values: Mapping[str, float]) -> Limits:
    """Return limits by name.

    Args:
        values: Values of fields of `Limits`. The others have their defaults.

    Raises:
        UsageError: A name is unknown, or a value is not above 0.
    """
    names = {field.name for field in fields(Limits)}
    unknown = sorted(values.keys() - names)
    if unknown:
        raise UsageError(f"limits: expected {', '.join(sorted(names))}, got {', '.join(unknown)}.")
    chosen: dict[str, Any] = dict(values)
    return Limits(**chosen)


MOST_ZIP_FILES = 20_000
"""Most files of a zip file."""
