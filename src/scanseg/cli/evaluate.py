"""`scanseg evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.options import OutputFile, Overwrite, Rule, Workers, require_new_file
from scanseg.cli.progress import show_progress
from scanseg.errors import UsageError
from scanseg.messages import counted

if TYPE_CHECKING:
    from scanseg.specs import InstanceReport, Report


def evaluate(
    predictions: Path,
    references: Path,
    /,
    *,
    output: OutputFile,
    cases: Annotated[tuple[str, ...], Parameter(name="--case")] = (),
    only_predicted: bool = False,
    rule: Rule | None = None,
    distances: Literal["mm", "voxels"] | None = None,
    tolerances: Annotated[tuple[str, ...], Parameter(name="--tolerance")] = (),
    instances: Literal["numbers", "components", "grown"] | None = None,
    iou: float | None = None,
    border: int | None = None,
    overwrite: Overwrite = False,
    num_workers: Workers = None,
) -> None:
    """Compare label maps with their references: Dice, surface distances, volumes; or the objects in them: F1.

    Args:
        predictions: Folder of label maps, or one file.
        references: Folder of reference label maps of the same names, such as labelsTr, or one file.
        output: File to write the report to, JSON; new, or to be replaced by --overwrite.
        cases: Score this case alone; may be given again. Without it every case must have both files.
        only_predicted: Score the cases that have a prediction; how many references are left out is said.
        rule: What labels score that are empty in the prediction, the reference or both: `skip`, nnU-Net's, if not
            given; the others are those of published tables.
        distances: Unit of HD95 and ASD, mm if not given; `voxels` leaves the spacing out, as MSVM-UNet's tables.
        tolerances: Distance up to which surfaces agree (NSD): a number of mm, `LABEL=MM`, or `abdomen` for the organs'
            published ones; may be given again. Labels without any have 2 mm.
        instances: Score objects; the references hold a number for each. What one object is in the predictions:
            `numbers`, as there; `components`, connected parts of label 1, as published; `grown`, these with label 2
            around them.
        iou: Least overlap of a matched pair of objects, 0.5 if not given.
        border: Objects that reach into this many pixels at the image's border are left out, 2 if not given.
    """
    for_labels = {"--rule": rule, "--distances": distances, "--tolerance": tolerances or None}
    for_objects = {"--iou": iou, "--border": border}
    useless = for_objects if instances is None else for_labels
    given = [name for name, value in useless.items() if value is not None]
    if given:
        verb = "need" if instances is None else "are for labels, not for"
        raise UsageError(f"{', '.join(given)} {verb} --instances")
    require_new_file(output, overwrite=overwrite)
    if instances is None:
        _evaluate_labels(
            predictions,
            references,
            output=output,
            cases=cases,
            only_predicted=only_predicted,
            rule=rule or "skip",
            distances=distances or "mm",
            tolerances=tolerances,
            num_workers=num_workers,
        )
        return
    _evaluate_instances(
        predictions,
        references,
        output=output,
        cases=cases,
        only_predicted=only_predicted,
        instances=instances,
        iou=0.5 if iou is None else iou,
        border=2 if border is None else border,
        num_workers=num_workers,
    )


def _evaluate_labels(
    predictions: Path,
    references: Path,
    *,
    output: Path,
    cases: tuple[str, ...],
    only_predicted: bool,
    rule: Rule,
    distances: Literal["mm", "voxels"],
    tolerances: tuple[str, ...],
    num_workers: int | None,
) -> None:
    """Score label maps, write the report and show its summary."""
    from scanseg import api
    from scanseg.evaluation import METRIC_RULES, parse_tolerances, summary_rows

    tolerance_mm, label_tolerances_mm, preset = parse_tolerances(tolerances)
    with show_progress() as progress:
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
    _write(output, report, summary_rows(report))
    say(f"rule: {METRIC_RULES[rule].description}")
    say(f"report: {output}")


def _evaluate_instances(
    predictions: Path,
    references: Path,
    *,
    output: Path,
    cases: tuple[str, ...],
    only_predicted: bool,
    instances: Literal["numbers", "components", "grown"],
    iou: float,
    border: int,
    num_workers: int | None,
) -> None:
    """Score objects, write the report and show its summary."""
    from scanseg import api
    from scanseg.evaluation import instance_rows

    with show_progress() as progress:
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
    _write(output, report, instance_rows(report))
    say(f"report: {output}")


def _write(output: Path, report: "Report | InstanceReport", rows: list[tuple[str, ...]]) -> None:
    from scanseg.files import write_text

    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, report.to_json())
    head, *body = rows
    show_table(head, body)
    if report.unpredicted:
        verb = "was" if len(report.unpredicted) == 1 else "were"
        say(f"note: {counted(len(report.unpredicted), 'reference')} without a prediction {verb} left out")
