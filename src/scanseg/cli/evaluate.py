"""`scanseg evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    HARDWARE,
    OutputFile,
    Overwrite,
    Rule,
    require_new_file,
)
from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.progress import ProgressCallback
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.specs import InstanceReport, Report


def evaluate(
    predictions: Path,
    references: Path,
    /,
    *,
    output: OutputFile,
    overwrite: Overwrite = False,
    cases: Annotated[tuple[str, ...], COMMON, Parameter(name="--case")] = (),
    only_predicted: Annotated[bool, COMMON] = False,
    rule: Annotated[Rule | None, COMMON] = None,
    instances: Annotated[Literal["numbers", "components", "grown", "separated"] | None, COMMON] = None,
    html: Annotated[Path | None, COMMON, Parameter(name="--report")] = None,
    num_workers: Annotated[int | None, HARDWARE] = None,
    distances: Annotated[Literal["mm", "voxels"] | None, ADVANCED] = None,
    tolerances: Annotated[tuple[str, ...], ADVANCED, Parameter(name="--tolerance")] = (),
    iou: Annotated[float | None, ADVANCED] = None,
    border: Annotated[int | None, ADVANCED] = None,
) -> None:
    """Score predictions against references and write a report.

    Label maps are scored by Dice, surface distances and volumes. With `--instances`, instances are scored by F1.

    Args:
        predictions: Folder of predicted label maps, or one file.
        references: Folder of references with the same names, such as `labelsTr`, or one file.
        output: JSON file of the report. The scores of the cases are written beside it as CSV, the printed table as
            Markdown. Existing files are replaced only with `--overwrite`.
        cases: Score only this case. Repeat for more cases. Defaults to all cases, each with prediction and reference.
        only_predicted: Leave out references without a prediction. Their number is printed.
        rule: Rule for labels that are empty in the prediction, the reference or both. `skip` is nnU-Net's. The others
            belong to published tables. Defaults to `skip`.
        instances: Score instances. The references are instance maps. `numbers`: predictions are instance maps too.
            `components`: instances are connected parts of label 1, as published. `grown`: these parts with the
            adjacent voxels of label 2. `separated`: as `scanseg data instances` separates and grows them. Defaults to
            scoring label maps.
        html: Also write a report as one HTML file with pictures, see `scanseg report`. Only for folders.
            Defaults to no report.
        num_workers: Processes that score cases. 0 scores in the main process. Defaults to one per core, at most 16.
        distances: Unit of HD95 and ASD. `voxels` ignores the spacing, as MSVM-UNet's tables do. Defaults to
            `mm`, or to pixels for images without spacing.
        tolerances: Distance up to which surfaces agree (NSD): a number of mm for all labels, `LABEL=MM` for one label,
            or `abdomen` for the published values of organs. Repeat to combine them. Defaults to 2
            mm, or to 2 pixels for images without spacing.
        iou: Least overlap (IoU) of a matched pair. Needs `--instances`. Defaults to 0.5.
        border: Leave out instances that reach into this many pixels at the ends of y and x. Needs `--instances`.
            Defaults to 2.
    """
    label_options = {"--rule": rule, "--distances": distances, "--tolerance": tolerances or None}
    instance_options = {"--iou": iou, "--border": border}
    unused = instance_options if instances is None else label_options
    given = [name for name, value in unused.items() if value is not None]
    if given and instances is None:
        raise UsageError(f"{', '.join(given)}: expected --instances too. Add it, or leave these options out.")
    if given:
        raise UsageError(f"{', '.join(given)}: only for label maps, not with --instances. Leave one out.")
    if html is not None:
        _check_page(predictions, instances=instances)
    for path in (output, *(() if html is None else (html,))):
        require_new_file(path, overwrite=overwrite)
    with show_progress(f"scoring {predictions} against {references}") as progress:
        from scanseg.evaluation import report_files

        for path in report_files(output):
            require_new_file(path, overwrite=overwrite)
        if instances is None:
            report, rows = _score_labels(
                predictions,
                references,
                cases=cases,
                only_predicted=only_predicted,
                rule=rule or "skip",
                distances=distances or "mm",
                tolerances=tolerances,
                num_workers=num_workers,
                progress=progress,
            )
        else:
            report, rows = _score_instances(
                predictions,
                references,
                cases=cases,
                only_predicted=only_predicted,
                instances=instances,
                iou=0.5 if iou is None else iou,
                border=2 if border is None else border,
                num_workers=num_workers,
                progress=progress,
            )
    _write(output, report, rows)
    if instances is None:
        _print_rule(rule or "skip")
    print_line(f"report: {output}, with .csv and .md beside it")
    if html is not None:
        _write_html(html, predictions, references, report, num_workers=num_workers)


def _check_page(predictions: Path, *, instances: str | None) -> None:
    """Refuse `--report` for instances and single files."""
    if instances is not None:
        raise UsageError(
            "--report: only for label maps, got --instances. Leave it out, and run scanseg report with --instances."
        )
    if predictions.is_file():
        raise UsageError(
            f"--report: expected a folder of predictions, got the file {predictions}. Leave it out."
        )


def _write_html(
    path: Path,
    predictions: Path,
    references: Path,
    scores: "Report | InstanceReport",
    *,
    num_workers: int | None,
) -> None:
    """Write the report with pictures."""
    from scanseg import api
    from scanseg.specs import Report

    assert isinstance(scores, Report)
    with show_progress(f"writing {path}") as progress:
        api.report(
            predictions,
            path,
            references=references,
            scores=scores,
            num_workers=num_workers,
            progress=progress,
        )
    print_line(f"report: {path}")


def _score_labels(
    predictions: Path,
    references: Path,
    *,
    cases: tuple[str, ...],
    only_predicted: bool,
    rule: Rule,
    distances: Literal["mm", "voxels"],
    tolerances: tuple[str, ...],
    num_workers: int | None,
    progress: ProgressCallback,
) -> "tuple[Report | InstanceReport, list[tuple[str, ...]]]":
    """Score label maps.

    Returns:
        The report, and the rows of its summary.
    """
    from scanseg import api
    from scanseg.evaluation import parse_tolerances, summary_rows

    tolerance_mm, label_tolerances_mm, preset = parse_tolerances(tolerances)
    report = api.evaluate(
        predictions,
        references,
        cases=cases or None,
        only_predicted=only_predicted,
        rule=rule,
        distance_unit=distances,
        tolerance_mm=tolerance_mm,
        label_tolerances_mm=label_tolerances_mm,
        tolerance_preset=preset,
        num_workers=num_workers,
        progress=progress,
    )
    return report, summary_rows(report)


def _score_instances(
    predictions: Path,
    references: Path,
    *,
    cases: tuple[str, ...],
    only_predicted: bool,
    instances: Literal["numbers", "components", "grown", "separated"],
    iou: float,
    border: int,
    num_workers: int | None,
    progress: ProgressCallback,
) -> "tuple[Report | InstanceReport, list[tuple[str, ...]]]":
    """Score instances.

    Returns:
        The report, and the rows of its summary.
    """
    from scanseg import api
    from scanseg.evaluation import instance_rows

    report = api.evaluate_instances(
        predictions,
        references,
        instances=instances,
        iou=iou,
        border=border,
        cases=cases or None,
        only_predicted=only_predicted,
        num_workers=num_workers,
        progress=progress,
    )
    return report, instance_rows(report)


def _print_rule(rule: Rule) -> None:
    """Print the description of the rule for empty labels."""
    from scanseg.evaluation import METRIC_RULES

    print_line(f"rule: {METRIC_RULES[rule].description}")


def _write(output: Path, report: "Report | InstanceReport", rows: list[tuple[str, ...]]) -> None:
    from scanseg.evaluation import write_report

    write_report(report, output)
    head, *body = rows
    show_table(head, body)
    if report.unpredicted:
        verb = "was" if len(report.unpredicted) == 1 else "were"
        print_line(
            f"note: {counted(len(report.unpredicted), 'reference')} without a prediction {verb} left out"
        )
