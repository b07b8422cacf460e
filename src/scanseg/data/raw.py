"""Raw data sets: which files make up which case."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.specs import DatasetSpec


@dataclass(frozen=True)
class RawCase:
    """The files of one case."""

    name: str
    images: tuple[Path, ...]
    """One file for each channel, or one file that holds all channels."""
    label_map: Path | None
    """None for a case that is only to be predicted."""


@dataclass(frozen=True)
class RawDataset:
    """A data set as it lies on disk."""

    path: Path
    spec: DatasetSpec
    cases: tuple[RawCase, ...]
    """The training cases, sorted by name."""


def open_dataset(path: Path) -> RawDataset:
    """Open a data set in the raw layout of nnU-Net, or that of the Medical Segmentation Decathlon.

    Args:
        path: Folder with `dataset.json`, `imagesTr` and `labelsTr`.

    Raises:
        InputError: With everything that is wrong: no or an invalid `dataset.json`, missing channels, missing
            label maps, label maps without image, no cases.
    """
    raise NotImplementedError


def find_cases(folder_or_file: Path, *, file_ending: str, num_channels: int) -> tuple[RawCase, ...]:
    """Find the cases to predict.

    A folder holds `CASE_0000.ext`, `CASE_0001.ext` ... for each channel. Where one file holds all channels (one
    channel, a colour image, a NIfTI file of four axes), `CASE.ext` is a case as well.

    Args:
        folder_or_file: A folder, or the file of one case; the other channels of `CASE_0000.ext` lie beside it.
        file_ending: Ending of the files in a folder, with its dot; a single file may have any known ending.
        num_channels: Channels that each case must have.

    Returns:
        The cases, sorted by name, without label maps.

    Raises:
        InputError: With everything that is wrong: nothing there, missing channels, names used twice.
    """
    raise NotImplementedError
