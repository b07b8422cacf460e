"""The files that a prediction writes, and whether it may."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16

from scanseg.dataset import DESCRIPTION_FILE, RawCase, count_other_endings, find_cases, find_cases_of_files
from scanseg.errors import InputError
from scanseg.imaging import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS, Image, file_ending, write_image
from scanseg.messages import counted, listed
from scanseg.specs import DatasetSpec, PredictionRecord

RECORD_FILE = "prediction.json"

WRITTEN_AS = dict.fromkeys(LOSSY_ENDINGS, ".png") | dict(
    zip(DETACHED_ENDINGS, (".nrrd", ".mha"), strict=True)
)
"""Endings of label maps whose images have an ending that label maps are not written with."""


@dataclass(frozen=True)
class Wanted:
    """What is written beside the label maps."""

    probabilities: bool
    entropy: bool
    disagreement: bool


@dataclass(frozen=True)
class Target:
    """A case and the files it becomes; None: not wanted."""

    case: RawCase
    label_map: Path
    probabilities: Path | None
    entropy: Path | None
    disagreement: Path | None

    @property
    def files(self) -> list[Path]:
        """The files in the order in which they are written."""
        others = (self.probabilities, self.entropy, self.disagreement)
        return [*(path for path in others if path is not None), self.label_map]

    @property
    def is_there(self) -> bool:
        """Whether all files are there."""
        return all(path.exists() for path in self.files)


def find_targets(
    sources: Sequence[Path], output: Path, *, dataset: DatasetSpec, wanted: Wanted
) -> list[Target]:
    """Find the cases of some folders and files, and name what they become.

    Args:
        sources: Folders of images named as in training, or files of single cases.
        output: Folder for the results.
        dataset: What the model was trained on.
        wanted: What is written beside the label maps.

    Raises:
        InputError: Cases cannot be found, or two have one name.
    """
    ending, num_channels = dataset.file_ending, dataset.num_channels
    folders = [source for source in sources if source.is_dir()]
    cases = [
        *(
            case
            for folder in folders
            for case in find_cases(folder, file_ending=ending, num_channels=num_channels)
        ),
        *find_cases_of_files(
            [source for source in sources if source not in folders], num_channels=num_channels
        ),
    ]
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{listed([str(source) for source in sources])}: {listed(twice)} there more than once; predict them "
            f"into different folders."
        )
    return [_target(case, output, wanted) for case in cases]


def warn_of_others(sources: Sequence[Path], *, file_ending: str) -> tuple[str, ...]:
    """Say which files of some folders are not looked at because of their endings.

    Args:
        sources: Folders, and files, of which nothing is said.
        file_ending: Ending of the images, with its dot.
    """
    warnings = []
    for folder in dict.fromkeys(source for source in sources if source.is_dir()):
        others = count_other_endings(folder, file_ending=file_ending)
        if others:
            number = sum(others.values())
            verb = "does" if number == 1 else "do"
            endings = listed([f"{count} in {ending}" for ending, count in others.items()])
            warnings.append(
                f"{folder}: {counted(number, 'file')} skipped that {verb} not end in {file_ending} ({endings}); a file "
                "given by name may have any known ending"
            )
    return tuple(warnings)


def _target(case: RawCase, output: Path, wanted: Wanted) -> Target:
    """Name the files that a case becomes."""
    ending = file_ending(case.images[0])
    written = WRITTEN_AS.get(ending, ending)
    is_picture = DECODERS[written] == "pillow"
    map_name = f"{case.name}{written if DECODERS[written] == 'itk' else '.png' if is_picture else '.nii.gz'}"
    return Target(
        case,
        label_map=output / f"{case.name}{written}",
        probabilities=output / f"{case.name}.npz" if wanted.probabilities else None,
        entropy=output / "entropy" / map_name if wanted.entropy else None,
        disagreement=output / "disagreement" / map_name if wanted.disagreement else None,
    )


def check_output(
    output: Path, targets: Sequence[Target], *, description: str, overwrite: bool, continued: bool
) -> None:
    """Refuse to replace what is not ours, or what is, unless that was asked for.

    Args:
        output: Folder for the results.
        targets: What is to be written.
        description: The `dataset.json` that is to be written.
        overwrite: Files may be replaced.
        continued: The earlier prediction goes on: files of cases that lack others may be replaced, and the record.

    Raises:
        InputError: Something would be replaced.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; choose a folder for the label maps.")
    inputs = {path.resolve() for target in targets for path in target.case.images}
    written = [path for target in targets for path in target.files]
    replaced = [path.name for path in written if path.resolve() in inputs]
    told = "is an image" if len(replaced) == 1 else "are images"
    faults = [f"{listed(replaced)} {told} to segment"] if replaced else []
    if not faults and output.resolve() in {path.parent for path in inputs}:
        faults.append("it is the folder of the images to segment")
    there = [path.name for path in (*written, output / RECORD_FILE) if path.exists()]
    described = output / DESCRIPTION_FILE
    ours = not described.exists() or (output / RECORD_FILE).exists()
    if not ours and described.read_text(encoding="utf-8", errors="replace") != description:
        faults.append(f"{DESCRIPTION_FILE} there was not written by a prediction with this model")
    if faults:
        raise InputError(f"{output}: {'; '.join(faults)}. Choose another folder.")
    if there and not (overwrite or continued):
        raise InputError(
            f"{output}: {listed(there)} would be replaced. Choose another folder, keep what "
            f"is there and predict the rest by --skip-existing, or replace it by --overwrite."
        )


def check_earlier(output: Path, record: PredictionRecord) -> None:
    """Make sure that what is there was predicted as what is to be added.

    Args:
        output: Folder of the results.
        record: The record of what is to be added.

    Raises:
        InputError: It was not, or nobody knows.
    """
    path = output / RECORD_FILE
    if not path.exists():
        raise InputError(
            f"{output}: holds label maps but no {RECORD_FILE}, so nobody knows where they are from. Choose another "
            f"folder, or replace them by --overwrite instead of --skip-existing."
        )
    earlier = PredictionRecord.read(path)
    differing = [
        f"{name} was {getattr(earlier, name)}, not {getattr(record, name)}"
        for name in ("model", "recipe", "mirror")
        if getattr(earlier, name) != getattr(record, name)
    ]
    if not differing and earlier.model_digest != record.model_digest:
        differing.append("the model's weights, plan or postprocessing were others, or were not noted")
    if differing:
        raise InputError(
            f"{output}: what is there was predicted otherwise: {'; '.join(differing)}. Choose another folder, or "
            f"replace it by --overwrite instead of --skip-existing."
        )


def write_map(path: Path, values: Float16[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write an uncertainty map: a picture with 255 for 1, else float32.

    Args:
        path: The file; its folder is made if absent.
        values: From 0 to 1.
        like: The image whose grid the map has.
    """
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        array = np.round(255 * np.clip(values.astype(np.float32), 0, 1)).astype(np.uint8)
    else:
        array = values.astype(np.float32)
    image = Image(array[np.newaxis], spacing=like.spacing, origin=like.origin, direction=like.direction)
    write_image(path, image)
