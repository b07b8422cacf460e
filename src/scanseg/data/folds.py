"""Folds: which cases train and which validate."""

from scanseg.data.raw import RawDataset
from scanseg.specs import Splits


def find_splits(dataset: RawDataset, *, seed: int = 12345) -> Splits:
    """Read the folds that come with a data set, or draw five.

    Args:
        dataset: The data set.
        seed: Seed of the shuffle, where folds are drawn.

    Raises:
        InputError: The file of folds is invalid or names unknown cases, or there are fewer than two cases.
    """
    raise NotImplementedError
