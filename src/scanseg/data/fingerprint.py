"""Measure a data set: sizes, spacings and foreground intensities."""

from scanseg.data.raw import RawDataset
from scanseg.progress import ProgressListener, ignore_progress
from scanseg.specs import Fingerprint


def measure(
    dataset: RawDataset, *, num_workers: int, listen: ProgressListener = ignore_progress
) -> Fingerprint:
    """Measure every case of a data set.

    Args:
        dataset: The data set.
        num_workers: Processes that measure; 0 measures in this one.
        listen: Hears of each case that is done.

    Raises:
        InputError: A case cannot be read, or no case has foreground.
    """
    raise NotImplementedError
