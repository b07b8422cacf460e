"""Scores on the validation cases: quick ones on patches while training, and whole cases at the end."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from scanseg.data.batches import make_batch
from scanseg.data.resident import ResidentCases
from scanseg.data.sampling import VALIDATION_STREAM
from scanseg.data.store import Store
from scanseg.evaluation import CaseScores, Report, make_report, score_case
from scanseg.files import write_text
from scanseg.inference import Predictor
from scanseg.models import ModelFolder
from scanseg.progress import Progress, ProgressListener
from scanseg.specs import DatasetSpec, Plan
from scanseg.training.fit import Fit
from scanseg.training.losses import encode_targets
from scanseg.training.signals import raise_if_stopped

REPORT = "validation.json"


def patch_dice(
    fit: Fit, cases: ResidentCases, plan: Plan, *, device: torch.device
) -> dict[str, float | None]:
    """Return the Dice of each label over some patches of the validation cases, taken together.

    The patches are the same at every call, so that the values of a training can be compared.

    Args:
        fit: The network.
        cases: The validation cases.
        plan: How patches are drawn, and how many.
        device: Where the network is.

    Returns:
        Label to Dice; None where the label is neither there nor predicted.
    """
    counts = torch.zeros(3, len(plan.dataset.foreground), device=device)
    for iteration in range(plan.training.validation_batches):
        batch = make_batch(
            cases,
            plan.sampling,
            transforms=(),
            seed=plan.training.seed,
            stream=VALIDATION_STREAM,
            iteration=iteration,
            device=device,
        )
        counts += _count(fit.logits(batch), batch.label_maps, plan.dataset)
    overlap, predicted, real = counts.cpu().tolist()
    return {
        name: 2 * overlap[number] / (predicted[number] + real[number])
        if predicted[number] + real[number]
        else None
        for number, name in enumerate(plan.dataset.foreground)
    }


def _count(logits: Tensor, label_maps: Tensor, dataset: DatasetSpec) -> Tensor:
    """Count common, predicted and real voxels of each label."""
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
    device: torch.device,
    stopped: Callable[[], int | None],
    listen: ProgressListener,
) -> Report | None:
    """Predict whole validation cases, score them on the source grid, and write the report to the model folder.

    Args:
        network: The trained network.
        folder: The model folder; its plan says how to predict.
        store: Holds the cases and their references.
        cases: Names of the validation cases; none: nothing is written.
        device: Where to predict.
        stopped: Gives the number of a signal once the validation shall stop; asked while each case is predicted.
        listen: Told of progress.

    Raises:
        InterruptionError: `stopped` gave a signal; no report has been written.
    """
    if not cases:
        return None
    dataset = folder.plan.dataset
    predictor = Predictor(folder.plan, network, device=device, model=str(folder.path))
    scores = []

    def ask(progress: Progress | None = None) -> None:
        raise_if_stopped(stopped, "stopped in validation, after the training; --resume validates again")

    for number, name in enumerate(cases):
        case = store.case(name)
        image = store.read_image(case).astype(np.float32)
        label_map = predictor.predict_preprocessed(image, case.geometry, listen=ask)
        labels = score_case(
            label_map,
            store.read_reference(case),
            spacing=case.geometry.source_spacing,
            labels=dataset.foreground,
            ignore_label=dataset.ignore_label,
        )
        scores.append(CaseScores(name, labels))
        listen(Progress("validating", number + 1, len(cases), name))
        ask()
    report = make_report(
        scores,
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        predictions=str(folder.path),
        references=str(store.folder),
        labels_from="the plan",
    )
    write_text(folder.path / REPORT, report.to_json())
    return report
