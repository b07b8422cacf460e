"""Named data sets, their layouts, and the cases found in a source."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scanseg.imaging import Image
from scanseg.messages import counted, listed
from scanseg.specs import DatasetSpec, Fold

Part = Literal["train", "validation", "test", "unlabelled"]


_SIDE_FILES = ("thumbs.db", "desktop.ini")
"""Names in lower case of files of operating systems."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Image, label map and, if any, instance map of one converted case."""

    image: Image
    label_map: Image | None
    """Label map with the values of the data set's description. Other integers are possible until it is checked.

    `None`: an unlabelled case.
    """
    instances: Image | None = None
    """Instance map."""
    notes: tuple[str, ...] = ()
    """Changes of the case, one sentence each."""


@dataclass(frozen=True)
class SourceCase:
    """A case of the source that is not read yet."""

    name: str
    part: Part
    read: Callable[[], Sample]
    """Reader of the case. It can be pickled, and raises `InputError` if the files cannot be used."""


@dataclass(frozen=True)
class Found:
    """Cases and faults found in a source."""

    cases: tuple[SourceCase, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Data left out, and cases of the published split that are missing."""
    spec: DatasetSpec | None = None
    """Description of the labels in the source, if any."""
    folds: tuple[Fold, ...] = ()
    """Folds in the source, if any."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Entries of the source's description for human readers, such as its licence."""


@dataclass(frozen=True)
class Layout:
    """A layout in which a data set is distributed."""

    files: str
    """Paths in the source folder."""
    find: Callable[[Path], Found | None]
    """Function that finds the cases in a source folder. It returns `None` if the source has another layout."""
    is_general: bool = False
    """True if data of any origin may have this layout. Their description then names no public data set."""


@dataclass(frozen=True)
class NamedDataset:
    """A public data set that can be converted."""

    name: str
    content: str
    homepage: str
    """Address for the download, which is left to the user. Empty: data of one's own."""
    split: str
    """Text on the training, validation and test cases."""
    layouts: tuple[Layout, ...]
    spec: DatasetSpec | None
    """Channels and labels after the conversion. `None`: unchanged."""
    test_fraction: float = 0
    """Fraction of the cases drawn as a test set if the source has none."""


def first_folder(source: Path, candidates: Iterable[str], needed: Iterable[str]) -> Path | None:
    """Return the first candidate folder that holds a needed name.

    Args:
        source: Source folder.
        candidates: Paths relative to the source. "." is the source.
        needed: Names of files or folders. One existing name identifies the layout.

    Returns:
        The folder. `None`: no candidate holds a needed name.
    """
    names = tuple(needed)
    for candidate in candidates:
        folder = source / candidate
        if any((folder / name).exists() for name in names):
            return folder
    return None


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder sorted by name, without hidden files.

    macOS writes hidden files `._NAME`. The list is empty if the folder is missing.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def note_unused(folder: Path, is_used: Callable[[Path], bool]) -> tuple[str, ...]:
    """Return a note on unused content of a folder.

    Hidden files are not mentioned.

    Args:
        folder: Folder that holds cases. It may be missing.
        is_used: Returns whether a file or folder belongs to a case.
    """
    if not folder.is_dir():
        return ()
    names = sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _SIDE_FILES and not is_used(path)
    )
    if not names:
        return ()
    verb = "is" if len(names) == 1 else "are"
    return (f"{counted(len(names), 'entry', 'entries')} of {folder.name} {verb} left out: {listed(names)}",)
