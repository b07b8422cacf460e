"""What a converter finds in a source, and what a data set with a name is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scanseg.imaging import Image
from scanseg.specs import DatasetSpec, Fold

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One case as it is to be written: image, labels, and objects where the data set has them."""

    image: Image
    label_map: Image
    """Labels of the data set's description; any integers until they are checked."""
    instances: Image | None = None
    """A number for each object."""
    notes: tuple[str, ...] = ()
    """What is worth telling about the case."""


@dataclass(frozen=True)
class SourceCase:
    """A case of the source, found and not yet read."""

    name: str
    part: Part
    read: Callable[[], Sample]
    """Can be pickled; raises `InputError` where the files cannot be used."""


@dataclass(frozen=True)
class Found:
    """The cases of a source, and what is wrong with it."""

    cases: tuple[SourceCase, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What is left out, and what is missing of the published split."""
    spec: DatasetSpec | None = None
    """What the labels are, where the source itself says it."""
    folds: tuple[Fold, ...] = ()
    """Folds that the source itself has."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the source's description says to people, such as its licence."""


@dataclass(frozen=True)
class Layout:
    """A form in which people have a data set."""

    files: str
    """What it looks like: paths in the source folder."""
    find: Callable[[Path], Found | None]
    """Finds the cases; None where the source has another form."""


@dataclass(frozen=True)
class NamedDataset:
    """A data set with a name."""

    name: str
    content: str
    homepage: str
    """Where it is had; nothing is downloaded."""
    split: str
    """Which cases train, validate and test, in words."""
    layouts: tuple[Layout, ...]
    spec: DatasetSpec | None
    """Channels and labels after the conversion; None: as the source says."""
    test_fraction: float = 0
    """Part of the cases that is drawn as a test set where the source has none."""


def first_folder(source: Path, candidates: Iterable[str], needed: Iterable[str]) -> Path | None:
    """Return the first candidate, relative to the source, in which one of the needed names exists.

    Args:
        source: The folder that the user named.
        candidates: Paths in it; "." is itself.
        needed: Names of files or folders, any of which tells the form.
    """
    names = tuple(needed)
    for candidate in candidates:
        folder = source / candidate
        if any((folder / name).exists() for name in names):
            return folder
    return None


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder by name, without hidden ones (such as macOS's `._NAME`)."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
