"""Validate on patches during training, and on whole cases at the end."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from scanseg.batches import (
    VALIDATION_STREAM,
    TrainingCases,
    iterations_per_pass,
    make_batch,
    predicted_labels_of,
)
from scanseg.evaluation import CaseScores, Report, find_unit, make_report, score_case
from scanseg.files import written_whole
from scanseg.inference import Predictor
from scanseg.models import ModelFolder, TrainedWeights
from scanseg.preprocessing import Store, write_array
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped
from scanseg.specs import DatasetSpec, Plan
from scanseg.training.losses import encode_targets
from scanseg.training.step import TrainingStep


def patch_dice(
    step: TrainingStep, cases: TrainingCases, plan: Plan, *, num_batches: int, context: RunContext
) -> dict[str, float | None]:
    """Return the Dice of each label over patches of the validation cases.

    All patches are scored together. They are the same at every call, so values of a training can be compared. Slices
    repeat only after all of them were used. Cases on disk for the first batches of the next call are read ahead.

    Args:
        step: Training step with the evaluation network.
        cases: The validation cases.
        plan: Sampling and labels.
        num_batches: Number of batches.
        context: Device, progress, and the distributed processes that share the batches. `should_stop` is called after
            each batch of a single process.

    Returns:
        Dice (0 to 1) of each label. `None`: the label is neither annotated nor predicted.

    Raises:
        InterruptionError: A signal came.
    """
    counts = torch.zeros(3, len(plan.dataset.foreground), device=context.torch_device)
    if plan.sampling.order == "every-slice":
        num_batches = min(num_batches, iterations_per_pass(cases, plan.sampling))
    shared = range(context.distributed.rank, num_batches, context.distributed.world_size)
    for place, iteration in enumerate(shared):
        batch = make_batch(
            cases,
            plan.sampling,
            transforms=(),
            seed=plan.training.seed,
            stream=VALIDATION_STREAM,
            iteration=iteration,
            device=context.torch_device,
            predicted=predicted_labels_of(plan),
            following=(*shared[place + 1 :], *shared[:place]),
        )
        counts += _count(step.logits(batch), batch.label_maps, plan.dataset)
        context.progress(ProgressUpdate("scoring patches", place + 1, len(shared)))
        if context.distributed.world_size == 1:
            raise_if_stopped(context.should_stop, "stopped while patches were scored; continue with --resume")
    overlap, predicted, annotated = context.distributed.sum(counts).cpu().tolist()
    return {
        name: 2 * overlap[number] / (predicted[number] + annotated[number])
        if predicted[number] + annotated[number]
        else None
        for number, name in enumerate(plan.dataset.foreground)
    }


def _count(logits: Tensor, label_maps: Tensor, dataset: DatasetSpec) -> Tensor:
    """Count common, predicted and annotated voxels of each label.

    Args:
        logits: Axes (batch, output, *axes).
        label_maps: Axes (batch, *axes).
        dataset: The labels.

    Returns:
        Counts with axes (3, label).
    """
    targets = encode_targets(label_maps, dataset=dataset)
    masks = targets.masks.bool()
    if dataset.has_regions:
        predicted = logits > 0
    else:
        classes = torch.arange(1, logits.shape[1], device=logits.device)
        predicted = logits.argmax(1, keepdim=True) == classes.view(1, -1, *(1,) * (logits.ndim - 2))
        masks = masks[:, 1:]
    if targets.valid is not None:
        predicted, masks = predicted & targets.valid.bool(), masks & targets.valid.bool()
    axes = (0, *range(2, logits.ndim))
    return torch.stack([(predicted & masks).sum(axes), predicted.sum(axes), masks.sum(axes)]).float()


def validate(
    network: nn.Module,
    folder: ModelFolder,
    store: Store,
    cases: Sequence[str],
    *,
    weights: TrainedWeights,
    keep_predictions: bool,
    context: RunContext,
) -> Report | None:
    """Score whole validation cases and write the report to the model folder.

    Cases are scored on the source grid and shared among all processes.

    Args:
        network: The trained network.
        folder: The model folder with its plan.
        store: Store of the cases and their references.
        cases: Names of the validation cases. Empty: nothing is written.
        weights: The weights of the network, which name the report.
        keep_predictions: Keep the label maps.
        context: Device, progress, and the distributed processes that share the cases. `should_stop` is called during
            the prediction of each case.

    Returns:
        The report, or `None` if there are no validation cases.

    Raises:
        InterruptionError: A signal came. No report has been written.
    """
    if not cases:
        return None
    dataset = folder.plan.dataset
    predictor = Predictor(folder.plan, network, device=context.torch_device, model=str(folder.path))
    shared = cases[context.distributed.rank :: context.distributed.world_size]
    scores = []

    def stop_if_requested() -> None:
        raise_if_stopped(
            context.should_stop, "stopped in validation, after the training; continue with --resume"
        )

    for number, case_name in enumerate(shared):

        def show(update: ProgressUpdate, number: int = number, case_name: str = case_name) -> None:
            detail = f"{case_name}, window {update.done} of {update.total}"
            context.progress(ProgressUpdate("validating", number, len(shared), detail))
            stop_if_requested()

        case = store.case(case_name)
        image = store.read_image(case).astype(np.float32)
        label_map = predictor.predict_preprocessed(
            image,
            case.geometry,
            predicted=store.read_predicted(case),
            mirror=folder.plan.training.mirror_validation,
            progress=show,
        )
        labels = score_case(
            label_map,
            store.read_reference(case),
            spacing=case.geometry.source_spacing,
            labels=dataset.foreground,
            ignore_label=dataset.ignore_label,
        )
        scores.append(CaseScores(case_name, labels))
        if keep_predictions:
            write_prediction(folder, case_name, label_map)
        context.progress(ProgressUpdate("validating", number + 1, len(shared), case_name))
        stop_if_requested()
    by_case = {score.case: score for part in context.distributed.gather(scores) for score in part}
    report = make_report(
        [by_case[case_name] for case_name in cases],
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        predictions=str(folder.path),
        references=str(store.folder),
        labels_from="the plan",
        distance_unit=find_unit(
            dataset.file_ending, (store.case(name).geometry.source_spacing for name in cases)
        ),
    )
    if context.distributed.is_main_process:
        folder.scores.write_validation(report, weights=weights)
        if folder.exports(weights):
            folder.scores.write_validation_sources(store, cases)
    return report


def write_prediction(folder: ModelFolder, case: str, label_map: UInt8[np.ndarray, "*source"]) -> None:
    """Write the label map of a validation case to the model folder."""
    path = folder.prediction_path(case)
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as temporary:
        write_array(temporary, label_map)
