"""`scanseg evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.options import Rule, Workers
from scanseg.cli.progress import show_progress


def evaluate(
    predictions: Path,
    references: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    cases: Annotated[tuple[str, ...], Parameter(name="--case")] = (),
    rule: Rule = "skip",
    distances: Literal["mm", "voxels"] = "mm",
    tolerances: Annotated[tuple[str, ...], Parameter(name="--tolerance")] = (),
    num_workers: Workers = None,
) -> None:
    """Compare label maps with their references: Dice, surface distances, volumes.

    Args:
        predictions: Folder of label maps, or one file.
        references: Folder of reference label maps of the same names, such as labelsTr, or one file.
        output: File to write the report to, JSON.
        cases: Score this case alone; may be given again. Without it every case must have both files.
        rule: What labels score that are empty in the prediction, the reference or both: `skip` is nnU-Net's; the others
            are those of published tables.
        distances: Unit of HD95 and ASD; `voxels` leaves the spacing out, as MSVM-UNet's tables.
        tolerances: Distance up to which surfaces agree (NSD): a number of mm, `LABEL=MM`, or `abdomen` for the organs'
            published ones; may be given again. Labels without any have 2 mm.
    """
    from scanseg import api
    from scanseg.evaluation import METRIC_RULES, parse_tolerances, summary_rows
    from scanseg.files import write_text

    tolerance_mm, label_tolerances_mm, preset = parse_tolerances(tolerances)
    with show_progress() as listen:
        report = api.evaluate(
            predictions,
            references,
            cases=cases or None,
            rule=rule,
            distance_unit=distances,
            tolerance_mm=tolerance_mm,
            label_tolerances_mm=label_tolerances_mm,
            tolerance_preset=preset,
            num_workers=num_workers,
            listen=listen,
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, report.to_json())
    head, *rows = summary_rows(report)
    show_table(head, rows)
    say(f"rule: {METRIC_RULES[rule].description}")
    say(f"report: {output}")
