"""Temperatures of a model's outputs, fitted to its validation cases.

The temperature of a label is fitted to the voxels where its logit is the largest, that of a region to all voxels. It
minimizes the negative log-likelihood of the reference. Label maps do not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from scipy import optimize, special

from scanseg.errors import InputError, UsageError
from scanseg.evaluation import Report
from scanseg.files import write_text
from scanseg.inference import Predictor, load, resample_slices, to_probabilities
from scanseg.messages import listed
from scanseg.models import (
    VALIDATION_FILE,
    ModelFolder,
    calibration_path,
    is_ensemble,
    member_folders,
    read_ensemble,
    stamp_weights,
)
from scanseg.preprocessing import Store, crop_from_source
from scanseg.progress import ProgressUpdate
from scanseg.reports.cases import measure_reliability
from scanseg.reports.evidence import Reliability, find_box, sample_voxels
from scanseg.reports.stored_cases import open_store
from scanseg.runtime import RunContext
from scanseg.specs import CalibrationRecord, DatasetSpec, ReliabilityBins

_RANGE = (0.05, 20.0)
"""Smallest and largest temperature."""
_LEAST_VOXELS = 1000
"""Voxels of a label from which on it has its own temperature. Others have the temperature of all voxels."""
_SLAB_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class Samples:
    """Logits and references of voxels of a case."""

    logits: Float[np.ndarray, "output voxel"]
    reference: UInt8[np.ndarray, " voxel"]


def calibrate(model: Path, *, overwrite: bool, context: RunContext) -> CalibrationRecord:
    """Fit and store the temperatures of a model. See `scanseg.calibrate`.

    Args:
        model: Model folder, or folder of a cross-validation of one recipe.
        overwrite: Replace an earlier calibration.
        context: Device and progress.

    Raises:
        InputError: The folder is no model, it has no validation scores, or its preprocessed cases are missing.
        UsageError: A calibration exists, or the model averages several recipes.
    """
    path = calibration_path(model)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists. Pass overwrite (--overwrite) to replace it.")
    folders = member_folders(model)
    dataset = ModelFolder.open(folders[0]).plan.dataset
    if is_ensemble(model) and read_ensemble(model).average == "probabilities":
        raise UsageError(
            f"{model}: expected a model of one recipe, got the mean of several. Its temperatures would change label "
            f"maps. Calibrate one of {listed([str(model / name) for name in read_ensemble(model).members])}."
        )
    store = _find_store(model)
    samples = list(_sample_cases(folders, store, context=context))
    if not samples:
        raise InputError(f"{model}: expected validation cases, got none. Train with a fold.")
    record = make_record(samples, dataset).model_copy(update={"weights": stamp_weights(model, folders)})
    write_text(path, record.to_json())
    return record


def make_record(samples: Sequence[Samples], dataset: DatasetSpec) -> CalibrationRecord:
    """Fit temperatures and measure them. The record has no weights.

    Args:
        samples: Voxels of each case, at least one.
        dataset: The labels.
    """
    before = after = Reliability()
    loss_before = loss_after = 0.0
    total = 0
    halves = (samples[0::2], samples[1::2]) if len(samples) > 1 else (samples, samples)
    for others, measured in zip(halves, reversed(halves), strict=True):
        temperatures = fit_temperatures(_join(others), dataset)
        for case in measured if len(samples) > 1 else measured[:1]:
            plain = to_probabilities(case.logits, regions=dataset.has_regions)
            tempered = to_probabilities(case.logits, regions=dataset.has_regions, temperatures=temperatures)
            before += measure_reliability(plain, case.reference, dataset)
            after += measure_reliability(tempered, case.reference, dataset)
            loss_before += _sum_loss(plain, case.reference, dataset)
            loss_after += _sum_loss(tempered, case.reference, dataset)
            total += len(case.reference)
        if len(samples) == 1:
            break
    outputs = tuple(dataset.foreground)
    return CalibrationRecord(
        outputs=outputs if dataset.has_regions else ("background", *outputs),
        temperatures=fit_temperatures(_join(samples), dataset),
        weights={},
        num_cases=len(samples),
        num_voxels=total,
        error_before=before.error,
        error_after=after.error,
        loss_before=loss_before / max(total, 1),
        loss_after=loss_after / max(total, 1),
        before=_bins_of(before),
        after=_bins_of(after),
    )


def fit_temperatures(samples: Samples, dataset: DatasetSpec) -> tuple[float, ...]:
    """Return the temperature of each output with the smallest negative log-likelihood.

    Args:
        samples: Voxels.
        dataset: The labels.
    """
    logits, reference = samples.logits.astype(np.float64), samples.reference
    if dataset.has_regions:
        masks = [np.isin(reference, values) for values in dataset.foreground.values()]
        return tuple(_fit_region(each, mask) for each, mask in zip(logits, masks, strict=True))
    targets = _targets(reference, dataset)
    decided = logits.argmax(axis=0)
    shared = _fit_labels(logits, targets)
    return tuple(
        shared
        if (chosen := decided == output).sum() < _LEAST_VOXELS
        else _fit_labels(logits[:, chosen], targets[chosen])
        for output in range(len(logits))
    )


def reliability_of(bins: ReliabilityBins) -> Reliability:
    """Return the counts of a record.

    Args:
        bins: Bins of the record.
    """
    return Reliability(np.array(bins.counts, np.int64), np.array(bins.confidence), np.array(bins.correct))


def _find_store(model: Path) -> Store:
    """Return the store of the validation cases.

    Raises:
        InputError: Scores or store are missing.
    """
    if not (model / VALIDATION_FILE).is_file():
        raise InputError(f"{model}: expected {VALIDATION_FILE}, which is missing. Finish the training first.")
    report = Report.read(model / VALIDATION_FILE)
    store = open_store(report, model)
    if store is None:
        raise InputError(
            f"{model}: expected its preprocessed cases at {report.references}, which are missing. Preprocess the data "
            "set again."
        )
    return store


def _sample_cases(folders: Sequence[Path], store: Store, *, context: RunContext) -> Iterator[Samples]:
    """Yield voxels of the validation cases of each network."""
    work = []
    for folder in folders:
        record = ModelFolder.open(folder).read_run()
        work += [(folder, name) for name in (() if record is None else record.validation_cases)]
    current, predictor = None, None
    for number, (folder, name) in enumerate(work):
        if folder != current:
            current, predictor = folder, load(folder, device=context.device)
        assert predictor is not None
        context.progress(ProgressUpdate("calibrating", number, len(work), name))
        yield _sample_case(predictor, store, name)
    context.progress(ProgressUpdate("calibrating", len(work), len(work)))


def _sample_case(predictor: Predictor, store: Store, name: str) -> Samples:
    """Predict a case and take voxels near labels of the reference."""
    case, dataset = store.case(name), predictor.plan.dataset
    reference = np.asarray(crop_from_source(store.read_reference(case), case.geometry))
    if dataset.ignore_label is not None:
        box = find_box([(reference > 0) & (reference != dataset.ignore_label)])
    else:
        box = find_box([reference])
    rows, *places = sample_voxels(reference.shape, box)
    bounds = np.searchsorted(rows, np.arange(len(reference) + 1))
    prediction = predictor.predict_plan(
        store.read_image(case).astype(np.float32),
        case.geometry,
        predicted=store.read_predicted(case),
        mirror=False,
    )
    logits = np.empty((dataset.num_outputs, len(rows)), np.float32)
    slices = resample_slices(
        prediction.slabs,
        case.geometry,
        separate_z=prediction.separate_z,
        device=predictor.device,
        slab_bytes=_SLAB_BYTES,
    )
    for row, values in enumerate(slices):
        part = slice(bounds[row], bounds[row + 1])
        if part.start < part.stop:
            plane = values[: dataset.num_outputs].cpu().numpy()
            logits[:, part] = plane[(slice(None), *(index[part] for index in places))]
    found = reference[(rows, *places)]
    valid = np.ones(len(found), bool) if dataset.ignore_label is None else found != dataset.ignore_label
    return Samples(logits[:, valid], found[valid])


def _join(samples: Sequence[Samples]) -> Samples:
    return Samples(
        np.concatenate([each.logits for each in samples], axis=1),
        np.concatenate([each.reference for each in samples]),
    )


def _targets(reference: UInt8[np.ndarray, " voxel"], dataset: DatasetSpec) -> Int64[np.ndarray, " voxel"]:
    """Return the number of the output of each voxel."""
    outputs = np.zeros(256, np.int64)
    for number, values in enumerate(dataset.foreground.values(), start=1):
        outputs[list(values)] = number
    return outputs[reference]


def _fit_labels(logits: Float[np.ndarray, "output voxel"], targets: Int64[np.ndarray, " voxel"]) -> float:
    chosen = np.take_along_axis(logits, targets[np.newaxis], axis=0)[0]
    return _minimize(lambda t: float((special.logsumexp(logits / t, axis=0) - chosen / t).mean()))


def _fit_region(logits: Float[np.ndarray, " voxel"], mask: Bool[np.ndarray, " voxel"]) -> float:
    signed = np.where(mask, -logits, logits)
    return _minimize(lambda t: float(np.logaddexp(0, signed / t).mean()))


def _minimize(loss: Callable[[float], float]) -> float:
    """Return the temperature with the smallest loss."""
    low, high = np.log(_RANGE)
    found = optimize.minimize_scalar(lambda log: loss(np.exp(log)), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def _sum_loss(
    probabilities: Float[np.ndarray, "output voxel"],
    reference: UInt8[np.ndarray, " voxel"],
    dataset: DatasetSpec,
) -> float:
    """Return the sum of the negative log-likelihood of voxels."""
    least = np.finfo(np.float32).tiny
    if not dataset.has_regions:
        targets = _targets(reference, dataset)
        chosen = np.take_along_axis(probabilities, targets[np.newaxis], axis=0)[0]
        return float(-np.log(np.maximum(chosen, least)).sum())
    masks = np.stack([np.isin(reference, values) for values in dataset.foreground.values()])
    chosen = np.where(masks, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(chosen, least)).mean(axis=0).sum())


def _bins_of(counts: Reliability) -> ReliabilityBins:
    return ReliabilityBins(
        counts=tuple(counts.counts.tolist()),
        confidence=tuple(counts.confidence.tolist()),
        correct=tuple(counts.correct.tolist()),
    )
