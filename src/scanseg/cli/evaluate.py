"""`scanseg evaluate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.options import Workers
from scanseg.cli.progress import show_progress


def evaluate(
    predictions: Path,
    references: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    cases: Annotated[tuple[str, ...], Parameter(name="--case")] = (),
    num_workers: Workers = None,
) -> None:
    """Compare label maps with their references: Dice, surface distances, volumes.

    Args:
        predictions: Folder of label maps, or one file.
        references: Folder of reference label maps of the same names, such as labelsTr, or one file.
        output: File to write the report to, JSON.
        cases: Score this case alone; may be given again. Without it every case must have both files.
    """
    from scanseg import api
    from scanseg.evaluation import summary_rows
    from scanseg.files import write_text

    with show_progress() as listen:
        report = api.evaluate(
            predictions, references, cases=cases or None, num_workers=num_workers, listen=listen
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, report.to_json())
    head, *rows = summary_rows(report)
    show_table(head, rows)
    say(f"report: {output}")
