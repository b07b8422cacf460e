"""Names and values of labels from the `dataset.json` beside predictions and references."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset import DESCRIPTION_FILE, read_description
from scanseg.errors import refuse_faults
from scanseg.specs import BACKGROUND, DatasetSpec


@dataclass(frozen=True)
class LabelSource:
    """Description of the labels, with its source."""

    spec: DatasetSpec | None
    """`None`: no description exists."""
    name: str
    """File or data set of the description, or the reason why none exists."""
    warnings: tuple[str, ...] = ()
    """Other names of the same values."""


def find_labels(predictions: Path, references: Path) -> LabelSource:
    """Return the first description of the labels, compared with the others.

    It is looked for in the folder of the predictions, the folder of the references, and its parent.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of reference label maps, or one file.

    Raises:
        InputError: A description cannot be read.
        FaultsError: Two descriptions give a label different values. Its scores would be those of another label.
    """
    folders = [path if path.is_dir() else path.parent for path in (predictions, references)]
    places = {folder.resolve(): folder for folder in (folders[1].resolve().parent, *reversed(folders))}
    found = [
        (folder / DESCRIPTION_FILE, read_description(folder).spec)
        for folder in reversed(places.values())
        if (folder / DESCRIPTION_FILE).is_file()
    ]
    if not found:
        return LabelSource(None, f"the values found, as {DESCRIPTION_FILE} is missing")
    (path, spec), *others = found
    refuse_faults(
        f"{predictions} and {references}",
        [fault for other, of_other in others for fault in _find_other_values(path, spec, other, of_other)],
    )
    warnings = [text for other, of_other in others for text in _find_other_names(path, spec, other, of_other)]
    return LabelSource(spec, str(path), tuple(warnings))


def _find_other_values(path: Path, spec: DatasetSpec, other: Path, of_other: DatasetSpec) -> Iterator[str]:
    """Yield a fault for each label with different values."""
    for name in (name for name in spec.labels if name in of_other.labels):
        own, others = (set(_values(each, name)) for each in (spec, of_other))
        if own != others:
            yield (
                f"label {name}: expected one value in all descriptions, got {_joined(own)} in {path} and "
                f"{_joined(others)} in {other}. Correct the values, or remove the wrong file."
            )


def _find_other_names(path: Path, spec: DatasetSpec, other: Path, of_other: DatasetSpec) -> Iterator[str]:
    """Yield a warning for each set of values with different names."""
    names = {frozenset(_values(spec, name)): name for name in spec.labels}
    for name in of_other.labels:
        own = names.get(values := frozenset(_values(of_other, name)))
        if own not in (None, name, BACKGROUND):
            yield f"label {_joined(values)} is {own} in {path} and {name} in {other}. The report names it {own}."


def _values(spec: DatasetSpec, name: str) -> tuple[int, ...]:
    """Return the values of a label or region."""
    values = spec.labels[name]
    return values if isinstance(values, tuple) else (values,)


def _joined(values: set[int] | frozenset[int]) -> str:
    """Return values in ascending order."""
    return ", ".join(map(str, sorted(values)))
