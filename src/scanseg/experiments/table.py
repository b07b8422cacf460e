"""Write the record, the table and the figure of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.figures import draw_dice_over_time, draw_spread
from scanseg.files import write_text, written_whole
from scanseg.messages import counted
from scanseg.models import ModelFolder
from scanseg.specs import ArmComparison, ArmOutcome, ComparisonRecord
from scanseg.tables import as_csv, as_markdown

RECORD, TABLE, FIGURE = "comparison.json", "comparison.md", "comparison.png"
_FEW_CASES = 6
"""With fewer cases no signed-rank test can fall below 0.05."""


def write_comparison(record: ComparisonRecord, folder: Path) -> None:
    """Write a comparison as JSON, Markdown and CSV, and its figure.

    The figure needs matplotlib.

    Args:
        record: The comparison.
        folder: Folder to write.
    """
    rows = comparison_rows(record)
    notes = "\n".join(f"- {line}" for line in table_notes(record))
    text = f"# {record.spec.title}\n\n{record.spec.question}\n\n{as_markdown(rows)}\n\n{notes}\n"
    write_text(folder / RECORD, record.to_json())
    write_text(folder / TABLE, text)
    write_text(folder / TABLE.replace(".md", ".csv"), as_csv(rows))
    _write_figure(record, folder / FIGURE)


def comparison_rows(record: ComparisonRecord) -> list[tuple[str, ...]]:
    """Return the rows of the table, the head first.

    Dice is in percent.

    Args:
        record: The comparison.
    """
    labels = list(record.arms[0].labels)
    compared = {one.arm: one for one in record.comparisons}
    rows: list[tuple[str, ...]] = [
        ("arm", "trainings", "parameters (M)", "Dice (%)", "std", "seed std", "gain", "p (Holm)", *labels)
    ]
    for arm in record.arms:
        one = compared.get(arm.name)
        rows.append(
            (
                arm.name,
                str(len(arm.runs)),
                f"{arm.num_parameters / 1e6:.2f}",
                _percent(arm.mean_dice),
                _percent(arm.std),
                _percent(arm.seed_std),
                "baseline" if one is None else _percent(one.gain, sign=True),
                "" if one is None else _p_value(one.p_corrected),
                *(_percent(arm.labels[label]) for label in labels),
            )
        )
    return rows


def table_notes(record: ComparisonRecord) -> list[str]:
    """Return the results in sentences, and the notes of the table.

    Args:
        record: The comparison.
    """
    spec = record.spec
    lines = [_sentence(one) for one in record.comparisons]
    trained = f"{counted(len(spec.seeds), 'seed')}, {counted(len(spec.folds), 'fold')}"
    if spec.max_minutes is not None:
        trained += f", at most {spec.max_minutes:g} min a training"
    lines.append(
        f"{record.dataset}, {trained}, last weights. Dice is the mean over labels of the mean over validation cases. A "
        "label that is neither annotated nor predicted in a case is not counted."
    )
    lines.append(
        "std: standard deviation over trainings. seed std: standard deviation over seeds of the mean over folds. p: "
        "two-sided Wilcoxon signed-rank test, paired by case (mean over labels and seeds), corrected by Holm's method."
    )
    if record.missing:
        lines.append(f"Still missing: {counted(len(record.missing), 'training')}, next {record.missing[0]}.")
    return lines


def _sentence(one: ArmComparison) -> str:
    """Return the result of an arm in words."""
    if one.gain is None:
        return f"{one.arm} against {one.baseline}: not trained yet."
    seeds = "one seed, so the spread is unknown"
    if one.exceeds_seeds is not None:
        spread = f"the spread over seeds (standard deviation {_percent(one.seed_std)})"
        seeds = (
            f"more than twice its standard error by {spread}"
            if one.exceeds_seeds
            else f"within twice its standard error by {spread}"
        )
    few = " (too few cases for the test)" if one.num_cases < _FEW_CASES else ""
    return (
        f"{one.arm} against {one.baseline}: {_percent(one.gain, sign=True)} points of Dice, {seeds}. Better in "
        f"{one.num_better} of {counted(one.num_cases, 'case')}, p {_p_value(one.p_corrected)}{few}."
    )


def _write_figure(record: ComparisonRecord, path: Path) -> None:
    """Draw scores and curves of every arm, if matplotlib is installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return  # a machine that only trains: the record has the numbers
    figure = Figure(figsize=(12, max(3.6, 1.2 + 0.5 * len(record.arms))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    baseline = record.spec.baseline_name
    draw_spread(left, {arm.name: _dice_of(arm) for arm in record.arms}, baseline=baseline)
    left.set_title("One dot per training, with mean and standard deviation", fontsize="medium")
    metrics = {
        arm.name: [ModelFolder.open(path.parent / run.model).metrics.read() for run in arm.runs]
        for arm in record.arms
    }
    draw_dice_over_time(right, metrics, baseline=baseline)
    right.set_title("One line per training", fontsize="medium")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _dice_of(arm: ArmOutcome) -> Sequence[float]:
    return [run.mean_dice for run in arm.runs if run.mean_dice is not None]


def _percent(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
