"""Output files of a prediction, and checks before they are written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float16

from scanseg.dataset import (
    DESCRIPTION_FILE,
    FaultyCase,
    ImageFolder,
    RawCase,
    SeriesCases,
    find_cases_of_files,
    find_images,
    find_series_cases,
    find_series_places,
)
from scanseg.errors import InputError, UsageError, refuse_faults
from scanseg.imaging import (
    DECODERS,
    DETACHED_ENDINGS,
    LOSSY_ENDINGS,
    MEDICAL_DECODERS,
    Image,
    decoder_of,
    file_ending,
    files_of,
    find_series,
    require_writer,
    split_series_path,
    write_image,
)
from scanseg.messages import listed
from scanseg.specs import DatasetSpec

RECORD_FILE = "prediction.json"
"""File name of the record."""

SEGMENTATION_FORMAT = "dicom-seg"
"""Format of DICOM Segmentations."""
SEGMENTATION_ENDING = ".dcm"
"""Ending of DICOM Segmentations."""

OutputFormat = Literal["nii.gz", "nii", "nrrd", "mha", "png", "tif", "dicom-seg"]
"""Formats of label maps: endings of files, or a DICOM Segmentation."""

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
    format: OutputFormat | None = None
    """Format of label maps. `None`: that of the image, or `nii.gz` for DICOM series."""
    series: tuple[str, ...] = ()
    """UIDs of the DICOM series to segment, or their beginnings. Empty: all cases."""
    pictures: bool = False
    """Write `pictures/CASE.png`."""


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
    series_uids: tuple[str, ...] | None = None
    """Series instance UIDs of DICOM series, one per channel. `None`: other images."""
    picture: Path | None = None
    """Picture of the image with its label map. `None`: not asked for."""

    @property
    def files(self) -> list[Path]:
        """Paths in the order of writing, without the pictures."""
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
        sources: Folders of images named as in training, files of single cases, or DICOM series.
        output: Folder for the results.
        dataset: Data set of the training: channels and file ending.
        options: Files to write in addition to label maps.
        faulty: List to which cases with missing or surplus channels are added if other cases are found. `None`: they
            are an error.
        warnings: List to which a sentence about the skipped files of each folder is added.

    Raises:
        InputError: No usable cases are found, two have the same name, or a chosen series is missing or not unique.
        UsageError: The format cannot hold the label maps of a case.
    """
    unusable, skipped = list[FaultyCase](), list[str]()
    if options.series:
        cases = _find_chosen(sources, options.series, dataset.num_channels, unusable)
    else:
        cases = _find_cases(sources, dataset, unusable, skipped)
    if warnings is not None:
        warnings += skipped
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
    _check_format(cases, options.format)
    return [_outputs_of(case, output, options) for case in cases]


def _find_cases(
    sources: Sequence[Path], dataset: DatasetSpec, unusable: list[FaultyCase], warnings: list[str]
) -> list[RawCase]:
    """Find all cases of folders, files and DICOM series."""
    ending, num_channels, allow_grey = (
        dataset.file_ending,
        dataset.num_channels,
        dataset.has_colour_pictures,
    )
    folders = [source for source in sources if source.is_dir()]
    others = {source: split_series_path(source) for source in sources if source not in folders}
    series = [
        find_series_cases(
            [split[0]], num_channels=num_channels, chosen=() if split[1] is None else (split[1],)
        )
        for split in others.values()
        if split is not None
    ]
    found: list[ImageFolder | SeriesCases] = [
        *(
            find_images(folder, file_ending=ending, num_channels=num_channels, allow_grey=allow_grey)
            for folder in folders
        ),
        *series,
    ]
    unusable += [case for each in found for case in each.faulty]
    warnings += [warning for each in found for warning in each.warnings]
    files = [source for source, split in others.items() if split is None]
    return [
        *(case for each in found for case in each.cases),
        *find_cases_of_files(files, num_channels=num_channels, allow_grey=allow_grey, faulty=unusable),
    ]


def _find_chosen(
    sources: Sequence[Path], chosen: Sequence[str], num_channels: int, unusable: list[FaultyCase]
) -> list[RawCase]:
    """Find the chosen DICOM series of folders and zip files."""
    places = list[Path]()
    for source in sources:
        split = split_series_path(source)
        found = [] if split is None else find_series_places(source) if source.is_dir() else [split[0]]
        if not found:
            raise UsageError(
                f"--series: expected folders or zip files of DICOM series, got {source}. Leave the option out for "
                "other images."
            )
        places += found
    cases = find_series_cases(places, num_channels=num_channels, chosen=chosen)
    unusable += cases.faulty
    return list(cases.cases)


def _check_format(cases: Sequence[RawCase], output_format: OutputFormat | None) -> None:
    """Check that a format can hold the label maps of all cases.

    Raises:
        InputError: The library that writes DICOM Segmentations is not installed.
        UsageError: The format is for other images.
    """
    volumes = [case.name for case in cases if decoder_of(case.images[0]) in MEDICAL_DECODERS]
    others = [case.name for case in cases if decoder_of(case.images[0]) != "dicom"]
    if output_format == SEGMENTATION_FORMAT:
        require_writer()
        if others:
            raise UsageError(
                f"--format dicom-seg: expected DICOM series, got other images: {listed(others)}. Choose nii.gz."
            )
    if output_format == "png" and volumes:
        raise UsageError(f"--format png: expected pictures, got volumes: {listed(volumes)}. Choose nii.gz.")


def _outputs_of(case: RawCase, output: Path, options: OutputOptions) -> CaseOutputs:
    """Name the output files of a case.

    The label values of pictures look black in viewers, so they get a picture in colours.
    """
    is_series = decoder_of(case.images[0]) == "dicom"
    ending = ".nii.gz" if is_series else file_ending(case.images[0])
    is_segmentation = options.format == SEGMENTATION_FORMAT
    written = WRITTEN_AS.get(ending, ending)
    if options.format is not None and not is_segmentation:
        written = f".{options.format}"
    is_picture = DECODERS[written] == "pillow"
    is_medical = DECODERS[written] in MEDICAL_DECODERS
    map_name = f"{case.name}{written if is_medical else '.png' if is_picture else '.nii.gz'}"
    return CaseOutputs(
        case,
        label_map=output / f"{case.name}{SEGMENTATION_ENDING if is_segmentation else written}",
        probabilities=output / f"{case.name}.npz" if options.probabilities else None,
        entropy=output / "entropy" / map_name if options.entropy else None,
        disagreement=output / "disagreement" / map_name if options.disagreement else None,
        colours=None if is_medical else output / "colours" / f"{case.name}.png",
        series_uids=tuple(find_series(path).uid for path in case.images) if is_series else None,
        picture=output / "pictures" / f"{case.name}.png" if options.pictures else None,
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
    inputs = {file.resolve() for outputs in cases for path in outputs.case.images for file in files_of(path)}
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
        for picture in (outputs.colours, outputs.picture):
            if picture is not None:
                picture.unlink(missing_ok=True)


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
