"""Look for everything that is wrong with a raw data set before time is spent on it."""

from dataclasses import dataclass

from scanseg.data.raw import RawDataset
from scanseg.progress import ProgressListener, ignore_progress


@dataclass(frozen=True)
class CheckReport:
    """What a sound data set holds."""

    dataset: str
    """Name of the data set."""
    num_cases: int
    num_axes: int
    """Spatial axes of the images: 2 or 3."""
    num_channels: int
    shape_range: tuple[tuple[int, ...], tuple[int, ...]]
    """Smallest and largest number of voxels along each axis."""
    spacing_range: tuple[tuple[float, ...], tuple[float, ...]]
    """Smallest and largest spacing in mm along each axis."""
    label_voxels: dict[str, int]
    """Voxels of each label or region over all cases."""
    label_cases: dict[str, int]
    """Cases in which each label or region occurs."""
    warnings: tuple[str, ...]
    """What is unusual but can be trained on."""

    def lines(self) -> list[str]:
        """Say the report in lines of text."""
        raise NotImplementedError


def check_dataset(
    dataset: RawDataset, *, num_workers: int, listen: ProgressListener = ignore_progress
) -> CheckReport:
    """Read every case and compare it with what the data set says about itself.

    Args:
        dataset: The data set.
        num_workers: Processes that read; 0 reads in this one.
        listen: Hears of each case that is done.

    Raises:
        InputError: With every fault of every case.
    """
    raise NotImplementedError
