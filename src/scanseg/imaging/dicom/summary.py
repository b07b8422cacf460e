"""Summaries of the series of a folder or zip file."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InputError
from scanseg.imaging.dicom.geometry import stack_slices
from scanseg.imaging.dicom.series import Series, list_series


@dataclass(frozen=True)
class SeriesSummary:
    """A series, as `scanseg dicom list` shows it."""

    path: Path
    """Path that names the series, for `predict` and `read_image`."""
    uid: str
    """Series instance UID."""
    modality: str
    """Modality, such as CT."""
    number: str
    """Series number. Empty: missing."""
    description: str
    """Description of the series. Empty: missing."""
    num_files: int
    shape: tuple[int, ...] | None
    """Voxels along z, y, x. `None`: the series is no volume."""
    spacing: tuple[float, ...] | None
    """Millimetres per voxel along z, y, x. `None`: the series is no volume."""
    fault: str | None
    """Reason why the series is no volume. `None`: it can be read."""
    warnings: tuple[str, ...]
    """Contradictions in the headers that do not prevent reading."""


@dataclass(frozen=True)
class SourceSummary:
    """The DICOM objects of a folder or zip file."""

    series: tuple[SeriesSummary, ...]
    """Series of images, sorted by UID."""
    others: tuple[str, ...]
    """Objects that are no images, such as reports: number and kind."""
    faults: tuple[str, ...]
    """Files that cannot be read, each with the reason."""


def summarize_series(source: Path) -> SourceSummary:
    """List the series of a folder or zip file.

    Subfolders are searched too.

    Args:
        source: Folder or zip file.

    Raises:
        InputError: The source is missing, damaged or unsafe, or pydicom is not installed.
    """
    if not source.exists():
        raise InputError(f"{source}: no such folder or zip file.")
    found = list_series(source)
    return SourceSummary(tuple(map(_summarize, found.series)), found.others, found.faults)


def _summarize(series: Series) -> SeriesSummary:
    """Return the summary of a series."""
    shape, spacing, fault, warnings = None, None, None, tuple[str, ...]()
    try:
        stack = stack_slices(series)
        shape, spacing, warnings = stack.grid.shape, stack.grid.spacing, stack.warnings
    except InputError as error:
        fault = str(error)
    return SeriesSummary(
        series.path,
        series.uid,
        series.modality,
        series.number,
        series.description,
        len(series.slices),
        shape,
        spacing,
        fault,
        warnings,
    )
