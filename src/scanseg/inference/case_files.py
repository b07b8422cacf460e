"""Segmentation of one case of a folder, and its output files."""

import time
from dataclasses import dataclass
from pathlib import Path

from scanseg.dataset import RawCase
from scanseg.errors import ScansegError
from scanseg.figures import Caption, displayed_labels, draw_planes, make_scene, write_figure
from scanseg.imaging import (
    SegmentationSource,
    make_segments,
    write_colours,
    write_label_map,
    write_probabilities,
    write_segmentation,
)
from scanseg.inference.outputs import SEGMENTATION_ENDING, CaseOutputs, write_map
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.inference.record import Sources, make_entry
from scanseg.inference.segmenter import Segmenter
from scanseg.progress import ProgressCallback
from scanseg.specs import DatasetSpec, FileStamp, PredictedCase, SegmentCodes, SourceFile


@dataclass(frozen=True, eq=False)
class CaseOptions:
    """Options of all cases of a prediction."""

    mirror: bool | None
    """Average over flips. `None`: as the plans say."""
    uncertainty: bool
    """Compute uncertainty maps."""
    codes: SegmentCodes | None
    """Codes of the segments of DICOM Segmentations."""
    model_digest: str
    """Checksum of the model, for headers of DICOM Segmentations."""


@dataclass(frozen=True, eq=False)
class CaseToPredict:
    """A case with its output files and the state of its images."""

    outputs: CaseOutputs
    """The case and its output files."""
    sources: Sources
    """Sizes and dates of its images before the prediction."""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.outputs.case.name


def describe_images(case: RawCase) -> Sources:
    """Return sizes and dates of image files, or `None` if one is missing.

    Args:
        case: The case.
    """
    try:
        return tuple(map(SourceFile.of, case.files))
    except OSError:
        return None


def segment_case(
    predictor: Segmenter,
    case: CaseToPredict,
    prepared: PreparedImage,
    options: CaseOptions,
    *,
    progress: ProgressCallback,
) -> Prediction | ScansegError:
    """Segment a case, or return the error if it fails.

    Args:
        predictor: Predictor of the model.
        case: The case.
        prepared: Its image.
        options: Options of all cases.
        progress: Called with each pass of the network.
    """
    try:
        return predictor.predict_prepared(
            prepared,
            mirror=options.mirror,
            probabilities=case.outputs.probabilities is not None,
            uncertainty=options.uncertainty,
            progress=progress,
        )
    except ScansegError as error:
        return error


def write_case(
    predictor: Segmenter,
    case: CaseToPredict,
    outcome: Prediction | ScansegError,
    options: CaseOptions,
    *,
    begin: float,
) -> PredictedCase:
    """Write the files of a case, and return its entry for the record.

    Args:
        predictor: Predictor of the model.
        case: The case.
        outcome: Its prediction, or the error of a failed case.
        options: Options of all cases.
        begin: Start of the case by `time.monotonic`.
    """
    warnings, fault = list[str](), None
    try:
        if isinstance(outcome, ScansegError):
            raise outcome
        warnings = [each for each in outcome.warnings if each not in predictor.warnings]
        _write(predictor, case.outputs, outcome, options)
    except ScansegError as error:
        fault = str(error)
    return make_entry(
        case.outputs,
        sources=case.sources,
        checksums=None if fault is not None or case.sources is None else _checksums(case.outputs.case),
        seconds=time.monotonic() - begin,
        warning=" ".join(warnings) or None,
        fault=fault,
    )


def _checksums(case: RawCase) -> tuple[str, ...] | None:
    """Return the SHA-256 checksums of the image files, or `None` if one was removed."""
    try:
        return tuple(FileStamp.of(path).sha256 for path in case.files)
    except OSError:
        return None


def _write(predictor: Segmenter, outputs: CaseOutputs, prediction: Prediction, options: CaseOptions) -> None:
    """Write the files of a case, the label map last."""
    dataset = predictor.plan.dataset
    if outputs.probabilities is not None and prediction.probabilities is not None:
        write_probabilities(outputs.probabilities, prediction.probabilities, like=prediction.image)
    for path, values in (
        (outputs.entropy, prediction.entropy),
        (outputs.disagreement, prediction.disagreement),
    ):
        if path is not None and values is not None:
            write_map(path, values, like=prediction.image)
    if outputs.colours is not None and prediction.label_map.ndim == 2:
        outputs.colours.parent.mkdir(exist_ok=True)
        write_colours(outputs.colours, prediction.label_map, like=prediction.image, colours=dataset.colours)
    if outputs.picture is not None:
        _write_picture(outputs.picture, prediction, dataset)
    if outputs.label_map.suffix == SEGMENTATION_ENDING:
        write_segmentation(
            outputs.label_map,
            prediction.label_map,
            like=prediction.image,
            segments=make_segments(dataset.foreground, options.codes),
            source=SegmentationSource(predictor.model, options.model_digest),
        )
        return
    write_label_map(outputs.label_map, prediction.label_map, like=prediction.image)


def _write_picture(path: Path, prediction: Prediction, dataset: DatasetSpec) -> None:
    """Write a picture of an image with its label map."""
    scene = make_scene(
        prediction.image, prediction.label_map, labels=displayed_labels(dataset), colours=dataset.colours
    )
    write_figure(draw_planes(scene, caption=Caption(path.stem)), path)
