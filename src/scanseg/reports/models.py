"""Reports of models: trainings and cross-validations."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from scanseg.errors import InputError
from scanseg.evaluation import Report
from scanseg.experiments import CROSS_VALIDATION_FILE
from scanseg.figures import displayed_labels, draw_loss, draw_validation_dice
from scanseg.messages import counted, format_duration, listed
from scanseg.models import (
    VALIDATION_FILE,
    ModelFolder,
    calibration_path,
    is_ensemble,
    member_folders,
)
from scanseg.reports.calibrating import reliability_of
from scanseg.reports.charts import make_chart
from scanseg.reports.colours import colours_of_labels
from scanseg.reports.evidence import count_confusion
from scanseg.reports.evidence_sections import confusion_section, reliability_section
from scanseg.reports.overlays import draw_case
from scanseg.reports.page import CasePictures, Cell, Chart, Page, Section, Table
from scanseg.reports.score_sections import (
    format_number,
    mean_dice,
    pick_cases,
    score_headline,
    score_sections,
)
from scanseg.reports.stored_cases import ValidationPredictor, find_label_map, open_store, read_stored_image
from scanseg.runtime import RunContext
from scanseg.specs import CalibrationRecord, CrossValidationRecord, Plan, RunRecord

_MOST_NAMES = 12


def model_page(model: Path, *, context: RunContext) -> Page:
    """Make the report of a model folder or a cross-validation.

    Args:
        model: The folder.
        context: Device of predictions of validation cases without a kept label map, and progress.

    Raises:
        InputError: The folder is not a model.
    """
    folders = [ModelFolder.open(each) for each in member_folders(model)]
    plan = folders[0].plan
    records = {folder.path.name: record for folder in folders if (record := folder.read_run()) is not None}
    scores = Report.read(model / VALIDATION_FILE) if (model / VALIDATION_FILE).is_file() else None
    sections: list[Section] = []
    if (model / CROSS_VALIDATION_FILE).is_file():
        sections.append(_choices(CrossValidationRecord.read(model / CROSS_VALIDATION_FILE)))
    warnings: list[str] = []
    if scores is None:
        warnings.append(
            "The validation cases have no scores: the training has not finished, or used all cases."
        )
    else:
        tables, *figures = score_sections(scores, colours_of_labels(plan.dataset))
        cases, *others = _case_sections(model, scores, plan, warnings, context=context)
        sections += [tables, cases, *figures, *others]
    if calibration_path(model).is_file():
        sections.append(_calibration(CalibrationRecord.read(calibration_path(model))))
    sections += [_curves(folders), _training(plan, records, is_single=not is_ensemble(model))]
    unfinished = [name for name, record in records.items() if record.status != "finished"]
    if unfinished:
        warnings.append(f"Not finished: {listed(unfinished)}.")
    kind = "Cross-validation" if is_ensemble(model) else "Training"
    return Page(
        f"{plan.dataset.name}: {plan.recipe}",
        f"{kind} in {model}",
        (() if scores is None else score_headline(scores)),
        tuple(sections),
        tuple(warnings),
    )


def _training(plan: Plan, records: dict[str, RunRecord], *, is_single: bool) -> Section:
    """Return the section about plan, data, versions and seeds."""
    training, optimizer = plan.training, plan.training.optimizer
    parameters = next((record.num_parameters for record in records.values()), None)
    facts = [
        ("Data set", plan.dataset.name + (f" ({plan.dataset_path})" if plan.dataset_path else "")),
        ("Data set digest", plan.dataset_digest or "not recorded"),
        ("Channels", ", ".join(plan.dataset.channel_names)),
        ("Labels", ", ".join(plan.dataset.foreground)),
        ("Recipe", f"{plan.recipe}, size {plan.size}"),
        ("Network", f"{plan.network.kind}, {plan.num_axes}D"),
        ("Parameters", "not recorded" if parameters is None else f"{parameters:,}"),
        (
            "Patch and batch",
            f"{_sizes(plan.sampling.patch_size)} voxels, batch of {plan.sampling.batch_size}",
        ),
        ("Optimizer", f"{optimizer.kind}, learning rate {optimizer.lr:g}, {training.schedule.kind} schedule"),
        ("Planned length", _planned_length(plan)),
        ("Seed", str(training.seed)),
    ]
    for name, record in records.items():
        prefix = "" if is_single else f"{name}: "
        facts += [(f"{prefix}{key}", value) for key, value in _run_facts(record)]
    return Section("Training", facts=tuple(facts))


def _run_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return the facts about one training."""
    last = record.sessions[-1]
    exported = record.exported
    facts = [
        ("Fold", str(record.fold)),
        ("Training cases", _count_and_names(record.train_cases)),
        ("Validation cases", _count_and_names(record.validation_cases)),
        ("Data digest", record.data_digest or "not recorded"),
        ("Done", f"{counted(record.epochs_done, 'epoch')} in {format_duration(record.training_seconds)}"),
        ("Device", f"{last.device}, {last.precision}, {counted(last.num_processes, 'process', 'processes')}"),
        ("Started", f"{record.sessions[0].started}, {counted(len(record.sessions), 'session')}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in last.versions.items())),
        ("Commit", last.commit or "not a git repository"),
        ("Initial weights", record.initial_weights or "random"),
    ]
    if exported is not None:
        dice = "" if exported.patch_dice is None else f", patch Dice {exported.patch_dice:.4f}"
        ema = ", EMA" if exported.ema else ""
        facts.append(("Exported weights", f"{exported.checkpoint}{ema}, step {exported.iterations}{dice}"))
    return facts


def _curves(folders: Sequence[ModelFolder]) -> Section:
    """Return the section with the curves of each training."""
    charts: list[Chart] = []
    for folder in folders:
        metrics = folder.metrics.read_all()
        if not metrics:
            continue
        name = "" if len(folders) == 1 else f"{folder.path.name}: "
        charts += [
            make_chart(
                partial(draw_loss, metrics=metrics),
                alternative=f"{name}training loss",
                num_elements=len(metrics),
            ),
            make_chart(
                partial(draw_validation_dice, metrics=metrics),
                alternative=f"{name}Dice on validation patches",
                caption=f"{name}Dice on patches of the validation cases" if name else "",
                num_elements=len(metrics),
            ),
        ]
    return Section("Curves", charts=tuple(charts))


def _choices(record: CrossValidationRecord) -> Section:
    """Return the section about the choices of a cross-validation."""
    rows = [
        (
            Cell(each.name + (" (chosen)" if each.name == record.chosen else "")),
            Cell(format_number(each.mean_dice), each.mean_dice),
            Cell(format_number(each.postprocessed_mean_dice), each.postprocessed_mean_dice),
        )
        for each in (*record.configurations, *record.ensembles)
    ]
    folds = [
        (Cell(f"{each.name}, fold {fold.fold}"), Cell(format_number(fold.mean_dice), fold.mean_dice))
        for each in record.configurations
        for fold in each.folds
    ]
    return Section(
        "Cross-validation",
        (f"{counted(record.num_cases, 'validation case')} of all folds.",),
        tables=(
            Table(("model", "mean Dice", "postprocessed"), rows),
            Table(("fold", "mean Dice"), folds),
        ),
    )


def _case_sections(
    model: Path, scores: Report, plan: Plan, warnings: list[str], *, context: RunContext
) -> list[Section]:
    """Return the sections that need images and label maps of validation cases."""
    store = open_store(scores, model)
    if store is None:
        warnings.append(
            f"Pictures are missing, because the preprocessed cases are not at {scores.references}."
        )
        return [Section("Cases")]
    dataset = plan.dataset
    labels, colours = displayed_labels(dataset), dataset.colours
    predictor = ValidationPredictor(model, store, device=context.device)
    pictures: list[CasePictures] = []
    for rank, case in pick_cases(scores):
        try:
            kept = find_label_map(model, store, case.case)
            label_map = predictor.predict(case.case) if kept is None else kept
            image = read_stored_image(store, case.case, plan)
            reference = store.read_reference(store.case(case.case))
        except InputError as error:
            warnings.append(f"Pictures of {case.case} are missing: {error}")
            continue
        facts = f"mean Dice {format_number(mean_dice(case))}. Areas: prediction. White outlines: reference."
        title = f"{rank}: {case.case}"
        pictures.append(
            draw_case(image, label_map, reference, labels=labels, colours=colours, title=title, facts=facts)
        )
    legend = tuple(colours_of_labels(dataset).items())
    sections = [Section("Cases", cases=tuple(pictures), legend=legend if pictures else ())]
    total = None
    for case in scores.cases:
        kept = find_label_map(model, store, case.case)
        if kept is None:
            return sections
        reference = store.read_reference(store.case(case.case))
        counts = count_confusion(
            kept, reference, (0, *dataset.label_values), ignore_label=dataset.ignore_label
        )
        total = counts if total is None else total + counts
    return [*sections, confusion_section(total, dataset)]


def _calibration(record: CalibrationRecord) -> Section:
    """Return the section about the calibration."""
    curves = {
        "before calibration": reliability_of(record.before),
        "after calibration": reliability_of(record.after),
    }
    rows = [
        (Cell(name), Cell(f"{temperature:.3f}"))
        for name, temperature in zip(record.outputs, record.temperatures, strict=True)
    ]
    facts = (
        ("Negative log-likelihood", f"{record.loss_before:.4f} before, {record.loss_after:.4f} after"),
        ("Voxels", f"{record.num_voxels:,} of {counted(record.num_cases, 'validation case')}"),
    )
    text = (
        "Logits are divided by a temperature for probabilities and uncertainty. Label maps do not change. Each half of "
        "the cases is measured with the temperatures of the other half."
    )
    section = reliability_section(curves)
    return replace(
        section,
        texts=(*section.texts, text),
        facts=(*section.facts, *facts),
        tables=(Table(("output", "temperature"), rows),),
    )


def _planned_length(plan: Plan) -> str:
    minutes = plan.training.max_minutes
    limit = "" if minutes is None else f", at most {minutes:g} min"
    return f"{counted(plan.training.epochs, 'epoch')}{limit}"


def _count_and_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names)}: {shown}{more}" if names else "none"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
