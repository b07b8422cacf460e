"""Write the report of a model, predictions, or a comparison."""

from pathlib import Path

from scanseg.errors import InputError, UsageError
from scanseg.experiments import COMPARISON_FILE
from scanseg.models import ModelFolder, is_ensemble
from scanseg.reports.comparisons import comparison_page
from scanseg.reports.instances import instance_page
from scanseg.reports.models import model_page
from scanseg.reports.page import Page, check_packages, write_page
from scanseg.reports.predictions import prediction_page
from scanseg.runtime import RunContext
from scanseg.specs import InstanceSource, Report


def write_report(
    target: Path,
    output: Path,
    *,
    references: Path | None = None,
    images: Path | None = None,
    scores: Report | None = None,
    instances: InstanceSource | None = None,
    iou: float = 0.5,
    border: int = 2,
    context: RunContext,
) -> None:
    """Write a report as one HTML file. See `scanseg.report`.

    Args:
        target: Model folder, cross-validation, comparison, or folder of predictions.
        output: HTML file.
        references: Folder of the references of predictions.
        images: Folder of the images of predictions.
        scores: Scores of the predictions, if they exist already.
        instances: Definition of an instance in the predictions. `None`: label maps are scored.
        iou: Smallest intersection over union of a matched pair of instances.
        border: Width in pixels of the border whose instances are left out.
        context: Device, worker processes and progress.

    Raises:
        InputError: The folder is none of these, or a file cannot be read.
        UsageError: An argument does not fit the folder, or a package is missing.
    """
    check_packages()
    page = _make_page(
        target,
        references=references,
        images=images,
        scores=scores,
        instances=instances,
        iou=iou,
        border=border,
        context=context,
    )
    write_page(page, output)


def _make_page(
    target: Path,
    *,
    references: Path | None,
    images: Path | None,
    scores: Report | None,
    instances: InstanceSource | None,
    iou: float,
    border: int,
    context: RunContext,
) -> Page:
    """Make the report of a folder by its kind."""
    if not target.is_dir():
        found = "a file" if target.exists() else "nothing"
        raise InputError(
            f"{target}: expected a folder, got {found}. Give a model, a folder of predictions, or a comparison."
        )
    is_comparison = (target / COMPARISON_FILE).is_file()
    is_model = ModelFolder.exists(target) or is_ensemble(target)
    if is_comparison or is_model:
        if references is not None or images is not None or instances is not None:
            raise UsageError(
                f"{target}: references, images and instances are for predictions, got a model or a comparison. Leave "
                f"them out."
            )
        return comparison_page(target) if is_comparison else model_page(target, context=context)
    if instances is not None:
        if references is None:
            raise UsageError(f"{target}: expected references to score instances, got none. Add --references.")
        return instance_page(
            target,
            references=references,
            images=images,
            instances=instances,
            iou=iou,
            border=border,
            context=context,
        )
    return prediction_page(target, references=references, images=images, scores=scores, context=context)
