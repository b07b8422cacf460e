"""Reports of comparisons of networks."""

from functools import partial
from pathlib import Path

from scanseg.experiments import COMPARISON_FILE, comparison_rows, table_notes
from scanseg.figures import draw_dice_over_time, draw_spread
from scanseg.messages import counted
from scanseg.models import ModelFolder
from scanseg.reports.charts import make_chart
from scanseg.reports.page import Cell, Page, Section, Table
from scanseg.reports.score_sections import format_number
from scanseg.specs import ComparisonRecord


def comparison_page(folder: Path) -> Page:
    """Make the report of a comparison.

    Args:
        folder: Folder of the comparison.

    Raises:
        InputError: The record of the comparison cannot be read.
    """
    record = ComparisonRecord.read(folder / COMPARISON_FILE)
    baseline = record.spec.baseline_name
    spread = {
        arm.name: [run.mean_dice for run in arm.runs if run.mean_dice is not None] for arm in record.arms
    }
    metrics = {
        arm.name: [
            ModelFolder.open(folder / run.model).metrics.read()
            for run in arm.runs
            if ModelFolder.exists(folder / run.model)
        ]
        for arm in record.arms
    }
    head, *rows = comparison_rows(record)
    charts = (
        make_chart(
            partial(draw_spread, values=spread, baseline=baseline),
            alternative="Dice of each training by arm",
            caption="One point per training, with mean and standard deviation. The dotted line is the baseline.",
            size=(5.6, 1.4 + 0.45 * len(spread)),
        ),
        make_chart(
            partial(draw_dice_over_time, trainings=metrics, baseline=baseline),
            alternative="Dice on validation patches over the time of training",
            caption="One line per training",
            num_elements=sum(len(run) for runs in metrics.values() for run in runs),
        ),
    )
    best = max(
        (arm for arm in record.arms if arm.mean_dice is not None),
        key=lambda arm: arm.mean_dice or 0.0,
        default=None,
    )
    headline = [
        (str(len(record.arms)), "arms"),
        (str(sum(len(arm.runs) for arm in record.arms)), "trainings"),
        *([] if best is None else [(format_number(best.mean_dice), f"highest mean Dice: {best.name}")]),
    ]
    warnings = (
        [f"{counted(len(record.missing), 'training')} missing, first {record.missing[0]}."]
        if record.missing
        else []
    )
    trainings = [
        (
            Cell(f"{arm.name}, seed {run.seed}, fold {run.fold}"),
            Cell(format_number(run.mean_dice), run.mean_dice),
            Cell(str(run.epochs_done)),
            Cell(f"{run.seconds / 60:.1f}"),
        )
        for arm in record.arms
        for run in arm.runs
    ]
    settings = tuple(
        (arm.name, f"{', '.join(arm.settings) or 'as planned'}; {arm.num_parameters:,} parameters")
        for arm in record.arms
    )
    return Page(
        f"{record.dataset}: comparison of {len(record.arms)} networks",
        f"Comparison in {folder}, baseline {baseline}",
        tuple(headline),
        (
            Section(
                "Result",
                tuple(table_notes(record)),
                tables=(Table(tuple(head), [tuple(map(Cell, row)) for row in rows]),),
            ),
            Section("Spread", charts=charts),
            Section("Arms", facts=settings),
            Section("Trainings", tables=(Table(("training", "mean Dice", "epochs", "minutes"), trainings),)),
        ),
        tuple(warnings),
    )
