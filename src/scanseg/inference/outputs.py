"""Output files of a prediction, and checks before they are written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float16

from scanseg.dataset import (
    DESCRIPTION_FILE,
    FaultyCase,
    RawCase,
    find_cases_of_files,
    find_images,
)
from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.imaging import (
    DECODERS,
    DETACHED_ENDINGS,
    LOSSY_ENDINGS,
    MEDICAL_DECODERS,
    Image,
    file_ending,
    write_image,
)
from scanseg.messages import listed
from scanseg.specs import DatasetSpec

RECORD_FILE = "prediction.json"
"""File name of the record."""

WRITTEN_AS = dict.fromkeys(LOSSY_ENDINGS, ".png") | dict(
    zip(DETACHED_ENDINGS, (".nrrd", ".mha"), strict=True)
)
"""Ending of label maps by the ending of the image, if label maps cannot have the same one."""


@dataclass(frozen=True)
class OutputOptions:
    """Files to write in addition to label maps."""

    probabilities: bool
    """Write `CASE.npz`."""
    entropy: bool
    """Write `entropy/CASE.ext`."""
    disagreement: bool
    """Write `disagreement/CASE.ext`."""


@dataclass(frozen=True)
class CaseOutputs:
    """A case and the paths of its output files."""

    case: RawCase
    """The case with its image files."""
    label_map: Path
    """Label map."""
    probabilities: Path | None
    """Probabilities. `None`: not asked for."""
    entropy: Path | None
    """Entropy map. `None`: not asked for."""
    disagreement: Path | None
    """Disagreement map. `None`: not asked for."""
    colours: Path | None
    """Picture of the label map in colours, written if it has two axes. `None`: a medical format."""

    @property
    def files(self) -> list[Path]:
        """Paths in the order of writing, without the picture in colours."""
        others = (self.probabilities, self.entropy, self.disagreement)
        return [*(path for path in others if path is not None), self.label_map]

    @property
    def names(self) -> dict[str, str | None]:
        """Names of the output files by their fields in the record."""
        paths = {
            "label_map": self.label_map,
            "probabilities": self.probabilities,
            "entropy": self.entropy,
            "disagreement": self.disagreement,
        }
        folder = self.label_map.parent
        return {
            field: None if path is None else path.relative_to(folder).as_posix()
            for field, path in paths.items()
        }

    @property
    def all_exist(self) -> bool:
        """True if all files exist."""
        return all(path.exists() for path in self.files)


def find_outputs(
    sources: Sequence[Path],
    output: Path,
    *,
    dataset: DatasetSpec,
    options: OutputOptions,
    faulty: list[FaultyCase] | None = None,
    warnings: list[str] | None = None,
) -> list[CaseOutputs]:
    """Find the cases of folders and files, and name their output files.

    Args:
        sources: Folders of images named as in training, or files of single cases.
        output: Folder for the results.
        dataset: Data set of the training: channels and file ending.
        options: Files to write in addition to label maps.
        faulty: List to which cases with missing or surplus channels are added if other cases are found. `None`: they
            are an error.
        warnings: List to which a sentence about the skipped files of each folder is added.

    Raises:
        InputError: No usable cases are found, or two have the same name.
    """
    unusable: list[FaultyCase] = []
    ending, num_channels = dataset.file_ending, dataset.num_channels
    folders = [source for source in sources if source.is_dir()]
    images = [find_images(folder, file_ending=ending, num_channels=num_channels) for folder in folders]
    unusable += [case for found in images for case in found.faulty]
    if warnings is not None:
        warnings += [warning for found in images for warning in found.warnings]
    cases = [
        *(case for found in images for case in found.cases),
        *find_cases_of_files(
            [source for source in sources if source not in folders],
            num_channels=num_channels,
            faulty=unusable,
        ),
    ]
    if faulty is None or not cases:
        where = str(sources[0]) if len(sources) == 1 else listed([str(source) for source in sources])
        refuse_faults(where, [fault for case in unusable for fault in case.named_faults])
    else:
        faulty += unusable
    counts = Counter([*(case.name for case in cases), *(case.name for case in unusable)])
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise InputError(
            f"{listed([str(source) for source in sources])}: more than one case has the name {listed(twice)}. Predict "
            f"these cases into different folders."
        )
    return [_outputs_of(case, output, options) for case in cases]


def _outputs_of(case: RawCase, output: Path, options: OutputOptions) -> CaseOutputs:
    """Name the output files of a case.

    The label values of pictures look black in viewers, so they get a picture in colours.
    """
    ending = file_ending(case.images[0])
    written = WRITTEN_AS.get(ending, ending)
    is_picture = DECODERS[written] == "pillow"
    is_medical = DECODERS[written] in MEDICAL_DECODERS
    map_name = f"{case.name}{written if is_medical else '.png' if is_picture else '.nii.gz'}"
    return CaseOutputs(
        case,
        label_map=output / f"{case.name}{written}",
        probabilities=output / f"{case.name}.npz" if options.probabilities else None,
        entropy=output / "entropy" / map_name if options.entropy else None,
        disagreement=output / "disagreement" / map_name if options.disagreement else None,
        colours=None if is_medical else output / "colours" / f"{case.name}.png",
    )


def check_output(
    output: Path, cases: Sequence[CaseOutputs], *, description: str, overwrite: bool, continued: bool
) -> None:
    """Check that no file would be replaced without permission.

    Images and data sets are never replaced.

    Args:
        output: Folder for the results.
        cases: Cases and their output files.
        description: Content of the `dataset.json` to write.
        overwrite: Results of an earlier prediction may be replaced.
        continued: The earlier prediction continues: the record, and files of incomplete cases, may be replaced.

    Raises:
        UsageError: A file would be replaced.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: expected a folder, got a file. Choose a folder for the label maps.")
    inputs = {path.resolve() for outputs in cases for path in outputs.case.images}
    written = [path for outputs in cases for path in outputs.files]
    replaced = [path.name for path in written if path.resolve() in inputs]
    noun = "is an image" if len(replaced) == 1 else "are images"
    faults = [f"{listed(replaced)} {noun} to segment"] if replaced else []
    if not faults and output.resolve() in {path.parent for path in inputs}:
        faults.append("it is the folder of the images to segment")
    existing = [path.name for path in (*written, output / RECORD_FILE) if path.exists()]
    described = output / DESCRIPTION_FILE
    is_own = not described.exists() or (output / RECORD_FILE).exists()
    if not is_own and described.read_text(encoding="utf-8", errors="replace") != description:
        faults.append(f"its {DESCRIPTION_FILE} was not written by a prediction with this model")
    if faults:
        raise UsageError(f"{output}: {'; '.join(faults)}. Choose another folder.")
    if existing and not (overwrite or continued):
        raise UsageError(
            f"{output}: {listed(existing)} would be replaced. Choose another folder, keep existing files and predict "
            f"the other cases by --skip-existing, or replace them by --overwrite."
        )


def remove_replaced(cases: Sequence[CaseOutputs]) -> None:
    """Remove the old files of cases that are predicted again.

    They would outlive an interrupted prediction, beside its record.

    Args:
        cases: Cases and their output files.
    """
    for outputs in cases:
        for path in reversed(outputs.files):
            path.unlink(missing_ok=True)
        if outputs.colours is not None:
            outputs.colours.unlink(missing_ok=True)


def write_map(path: Path, values: Float16[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write an uncertainty map as a picture or as float32.

    Args:
        path: Output file. A `.png` holds 255 for 1. Its folder is created if it is missing.
        values: Values from 0 to 1.
        like: Image with the same grid.
    """
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        array = np.round(255 * np.clip(values.astype(np.float32), 0, 1)).astype(np.uint8)
    else:
        array = values.astype(np.float32)
    write_image(path, replace(like, array=array[np.newaxis]))
