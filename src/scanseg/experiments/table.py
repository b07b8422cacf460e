"""The record of a study, its table and its figure."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from scanseg.figures import draw_dice_over_time, draw_spread
from scanseg.files import write_text, written_whole
from scanseg.messages import counted
from scanseg.models import ModelFolder
from scanseg.specs import CellOutcome, Comparison, StudyRecord

RECORD, TABLE, FIGURE = "study.json", "study.md", "study.png"
_FEW_CASES = 6
"""With fewer, no signed-rank test can fall below 0.05."""


def write_study(record: StudyRecord, folder: Path) -> None:
    """Write a study's record as JSON, Markdown and CSV, and its figure where matplotlib is there.

    Args:
        record: What the study gave.
        folder: Where to.
    """
    rows = study_rows(record)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    said = "\n".join(f"- {line}" for line in said_of(record))
    table = "\n".join([head, f"|{'---|' * len(rows[0])}", *body])
    text = f"# {record.spec.title}\n\n{record.spec.question}\n\n{table}\n\n{said}\n"
    write_text(folder / RECORD, record.to_json())
    write_text(folder / TABLE, text)
    write_text(folder / TABLE.replace(".md", ".csv"), stream.getvalue())
    _write_figure(record, folder / FIGURE)


def study_rows(record: StudyRecord) -> list[tuple[str, ...]]:
    """Return the cells of the table, its head first; Dice in percent.

    Args:
        record: What the study gave.
    """
    labels = list(record.cells[0].labels)
    compared = {one.cell: one for one in record.comparisons}
    rows: list[tuple[str, ...]] = [
        ("cell", "trainings", "parameters (M)", "Dice (%)", "std", "seed std", "gain", "p (Holm)", *labels)
    ]
    for cell in record.cells:
        one = compared.get(cell.name)
        rows.append(
            (
                cell.name,
                str(len(cell.runs)),
                f"{cell.num_parameters / 1e6:.2f}",
                _percent(cell.mean_dice),
                _percent(cell.std),
                _percent(cell.seed_std),
                "baseline" if one is None else _percent(one.gain, sign=True),
                "" if one is None else _p_value(one.p_corrected),
                *(_percent(cell.labels[label]) for label in labels),
            )
        )
    return rows


def said_of(record: StudyRecord) -> list[str]:
    """Return what the comparisons say, in sentences, and what must be said with the table.

    Args:
        record: What the study gave.
    """
    spec = record.spec
    lines = [_sentence(one) for one in record.comparisons]
    trained = f"{counted(len(spec.seeds), 'seed')}, {counted(len(spec.folds), 'fold')}"
    if spec.max_minutes is not None:
        trained += f", at most {spec.max_minutes:g} min a training"
    lines.append(
        f"{record.dataset}, {trained}; last weights; Dice is the mean over "
        "labels of the mean over validation cases, where a label that is neither there nor predicted is not counted."
    )
    lines.append(
        "std: standard deviation over trainings; seed std: over seeds of the mean over folds; p: Wilcoxon's "
        "signed-rank test, paired by case (each its mean over labels and seeds), two-sided, corrected by Holm's method."
    )
    if record.waiting:
        lines.append(
            f"Still to be done: {counted(len(record.waiting), 'training')}, next {record.waiting[0]}."
        )
    return lines


def _sentence(one: Comparison) -> str:
    """Say what a comparison shows."""
    if one.gain is None:
        return f"{one.cell} against {one.baseline}: not trained yet."
    seeds = "one seed, so that nothing is known of the spread"
    if one.exceeds_seeds is not None:
        spread = f"the spread over seeds (standard deviation {_percent(one.seed_std)})"
        seeds = (
            f"more than twice its standard error by {spread}"
            if one.exceeds_seeds
            else f"not more than what {spread} makes by chance"
        )
    few = " (too few cases for the test)" if one.num_cases < _FEW_CASES else ""
    return (
        f"{one.cell} against {one.baseline}: {_percent(one.gain, sign=True)} points of Dice, {seeds}; better in "
        f"{one.num_better} of {counted(one.num_cases, 'case')}, p {_p_value(one.p_corrected)}{few}."
    )


def _write_figure(record: StudyRecord, path: Path) -> None:
    """Draw the trainings of every cell, scores and curves; nothing where matplotlib is not there."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return  # a bare machine that trains from a store; the numbers are in the record
    figure = Figure(figsize=(12, max(3.6, 1.2 + 0.5 * len(record.cells))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    baseline = record.spec.baseline_name
    draw_spread(left, {cell.name: _dice_of(cell) for cell in record.cells}, baseline=baseline)
    left.set_title("Each dot a training; mean and standard deviation", fontsize="medium")
    metrics = {
        cell.name: [ModelFolder.open(path.parent / run.model).read_metrics() for run in cell.runs]
        for cell in record.cells
    }
    draw_dice_over_time(right, metrics, baseline=baseline)
    right.set_title("Each line a training", fontsize="medium")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _dice_of(cell: CellOutcome) -> Sequence[float]:
    return [run.mean_dice for run in cell.runs if run.mean_dice is not None]


def _percent(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
