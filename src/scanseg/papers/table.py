"""Tables of reproductions, with own and published rows, in four formats."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from scanseg.evaluation import METRIC_RULES
from scanseg.files import write_text
from scanseg.messages import first_lines
from scanseg.models import ModelFolder, TrainedWeights
from scanseg.papers.experiments import Experiment, published_results, results_of
from scanseg.papers.scoring import Scoring
from scanseg.specs import (
    InstanceReport,
    Measure,
    PublishedResult,
    Report,
    Reproduction,
    ReproductionRow,
    ReproductionSetup,
    Spread,
)
from scanseg.tables import as_csv, as_markdown

TABLE = "table"
"""Name of the table files without ending."""
_HEADS: dict[Measure, str] = {
    "dice": "Dice",
    "dice_of_cases": "Dice (mean of cases)",
    "hd95": "HD95",
    "nsd": "NSD",
    "f1": "F1 of instances",
}


@dataclass(frozen=True)
class TestScores:
    """Test scores of one training with one of its weights."""

    method: str
    folder: ModelFolder
    weights: TrainedWeights
    report: Report
    instances: InstanceReport | None

    @property
    def measures(self) -> dict[Measure, float | None]:
        """All available measures. `None`: no label was scored."""
        summary = self.report.summary
        found: dict[Measure, float | None] = {
            "dice": summary.mean_over_labels.dice,
            "dice_of_cases": summary.mean_over_cases.dice,
            "hd95": summary.mean_over_labels.hd95,
            "nsd": summary.mean_over_labels.nsd,
        }
        return found if self.instances is None else found | {"f1": self.instances.summary.f1.mean}


def make_reproduction(
    experiment: Experiment,
    setup: ReproductionSetup,
    scoring: Scoring,
    *,
    scores: Sequence[TestScores],
    train_cases: int,
    missing: tuple[str, ...],
) -> Reproduction:
    """Return the table of a reproduction.

    Args:
        experiment: The experiment.
        setup: Its setup.
        scoring: The metric rule and its tolerances.
        scores: Test scores of all finished trainings.
        train_cases: Number of training cases.
        missing: Names of the missing trainings and scores.
    """
    groups: dict[tuple[str, TrainedWeights], list[TestScores]] = {}
    for one in scores:
        groups.setdefault((one.method, one.weights), []).append(one)
    ours = [
        _own_row(group, experiment, checkpoint=_describe_checkpoint(setup, checkpoint))
        for (_, checkpoint), group in groups.items()
    ]
    published = [_published_row(row) for row in results_of(experiment) if _is_comparable(row, setup)]
    own = [row for row in ours if row.method == experiment.paper]
    baselines = [row for row in ours if row.method != experiment.paper]
    return Reproduction(
        paper=setup.paper,
        data=setup.data,
        num_axes=setup.num_axes,
        protocol=setup.protocol,
        quick=setup.quick,
        rule=scoring.rule,
        distance_unit=scoring.distance_unit,
        tolerance=scoring.tolerance if "nsd" in experiment.measures else "",
        scored=setup.scored,
        train_cases=train_cases,
        encoder=setup.encoder,
        notes=setup.notes,
        rows=(*own, *baselines, *published),
        missing=missing,
    )


def write_tables(table: Reproduction, folder: Path, *, measures: Sequence[Measure]) -> None:
    """Write the table as JSON, Markdown, CSV and HTML.

    Args:
        table: The table.
        folder: Folder to write.
        measures: Columns before the columns of the labels.
    """
    rows = table_rows(table, measures)
    write_text(folder / f"{TABLE}.json", table.to_json())
    write_text(folder / f"{TABLE}.md", _markdown(table, rows))
    write_text(folder / f"{TABLE}.csv", as_csv(rows))
    write_text(folder / f"{TABLE}.html", _html(table, rows))


def table_rows(table: Reproduction, measures: Sequence[Measure]) -> list[tuple[str, ...]]:
    """Return the rows of the table, the head first.

    Scores from 0 to 1 are in percent.

    Args:
        table: The table.
        measures: Columns before the columns of the labels.
    """
    labels = list(dict.fromkeys(label for row in table.rows for label in row.labels))
    unit = f" ({table.distance_unit})"
    heads = (f"{_HEADS[name]}{unit if name == 'hd95' else ' (%)'}" for name in measures)
    rows: list[tuple[str, ...]] = [("method", "from", "weights", "seeds", *heads, *labels)]
    for row in table.rows:
        seeds = str(len(row.seeds)) if row.seeds else ""
        scores = (_format_score(row.measures.get(name), percent=name != "hd95") for name in measures)
        label_scores = (_format_score(row.labels.get(label), percent=True) for label in labels)
        rows.append((row.method, row.origin, row.checkpoint, seeds, *scores, *label_scores))
    return rows


def table_notes(table: Reproduction) -> list[str]:
    """Return the notes: protocol, rule, weights, seeds, encoder and sources.

    Args:
        table: The table.
    """
    here = [row for row in table.rows if row.origin == "here"]
    seeds = sorted({seed for row in here for seed in row.seeds})
    weights = ", ".join(dict.fromkeys(row.checkpoint for row in here)) or "none yet"
    quick = (
        " Made with --quick: networks and images are small, and the scores have no meaning."
        if table.quick
        else ""
    )
    lines = [
        f"Protocol {table.protocol}: {table.train_cases} training cases, scored on {table.scored}.{quick}",
        f"Rule {table.rule} ({METRIC_RULES[table.rule].description}){_describe_distances(table)}. Dice is the mean "
        "over labels of the mean over cases, unless the head of the column names another mean.",
        f"Weights: {weights}. Seeds: {', '.join(map(str, seeds)) or 'none yet'}. ± is the standard deviation "
        "over seeds.",
    ]
    if here:
        lines.append(f"Trained here: {'; '.join(dict.fromkeys(_describe_training(row) for row in here))}.")
    if any("f1" in row.measures for row in table.rows):
        separated = ", separated and grown into label 2" if table.protocol == "held-out" else ""
        lines.append(
            f"F1 of instances: connected components of label 1{separated}, except those at the border, matched one to "
            "one at an overlap (IoU) of at least 0.5. Mean over images."
        )
    source = published_results().sources[table.paper]
    if any(row.origin == "published" for row in table.rows):
        lines.append(f"Published rows: {source}, on the test cases of the paper.")
    else:
        lines.append(f"No published rows: {source} has no results of this experiment.")
    if table.encoder:
        lines.append(f"Encoder of MSVM-UNet: {table.encoder}.")
    lines += [f"{row.method} ({row.origin}): {row.note}." for row in table.rows if row.note]
    lines += first_lines([f"Data: {note.rstrip('.')}." for note in table.notes])
    if table.missing:
        lines.append(f"Still missing: {', '.join(table.missing)}.")
    return lines


def _describe_training(row: ReproductionRow) -> str:
    """Return the size and training time of a network in words."""
    if row.parameters is None or row.training_seconds is None or row.epochs_done is None:
        return f"{row.method}, whose run record is missing"
    return (
        f"{row.method}, {row.parameters / 1e6:.2f} million parameters, {row.epochs_done:g} of {row.epochs_planned} "
        f"epochs in {row.training_seconds / 60:.1f} minutes"
    )


def _describe_distances(table: Reproduction) -> str:
    """Return the unit or the tolerance of the distances in words."""
    if table.tolerance:
        return f". NSD within {table.tolerance}"
    has_hd95 = any("hd95" in row.measures for row in table.rows)
    return f". HD95 in {table.distance_unit}" if has_hd95 else ""


def _own_row(group: Sequence[TestScores], experiment: Experiment, *, checkpoint: str) -> ReproductionRow:
    """Return the row of a method over its seeds.

    Args:
        group: Test scores of each seed with the same weights.
        experiment: The experiment.
        checkpoint: Description of the weights.
    """
    found = [one.measures for one in group]
    spreads = {name: _spread([measures.get(name) for measures in found]) for name in experiment.measures}
    records = [record for one in group if (record := one.folder.read_run()) is not None]
    infinite = sum(label.hd95_infinite for one in group for label in one.report.summary.labels.values())
    return ReproductionRow(
        method=group[0].method,
        origin="here",
        checkpoint=checkpoint,
        seeds=tuple(one.folder.plan.training.seed for one in group),
        num_cases=group[0].report.summary.num_cases,
        measures={name: spread for name, spread in spreads.items() if spread is not None},
        labels={
            label: _spread([one.report.summary.label_means()[label] for one in group])
            for label in group[0].report.labels
        },
        parameters=records[0].num_parameters if records else None,
        training_seconds=mean(record.training_seconds for record in records) if records else None,
        epochs_done=mean(record.epochs_done for record in records) if records else None,
        epochs_planned=group[0].folder.plan.training.epochs,
        note=f"{infinite} infinite HD95 do not count in the means"
        if infinite and "hd95" in experiment.measures
        else "",
    )


def _published_row(row: PublishedResult) -> ReproductionRow:
    return ReproductionRow(
        method=row.method,
        origin="published",
        checkpoint="as published",
        measures={name: Spread(mean=value, std=None) for name, value in row.measures.items()},
        labels={name: Spread(mean=value, std=None) for name, value in row.labels.items()},
        note=row.note,
    )


def _is_comparable(row: PublishedResult, setup: ReproductionSetup) -> bool:
    """Return whether a published row belongs in the table.

    Baselines do, and so does the paper's network in the same variant.
    """
    return row.variant is None or row.variant == setup.variant


def _describe_checkpoint(setup: ReproductionSetup, checkpoint: TrainedWeights) -> str:
    """Return the scored weights in words."""
    if checkpoint == "last":
        return "last"
    if setup.chosen_on_scored:
        return "best on the scored cases"
    return "best on validation"


def _spread(values: Iterable[float | None]) -> Spread | None:
    """Return mean and standard deviation of the values that are not `None`."""
    counted = [value for value in values if value is not None]
    if not counted:
        return None
    return Spread(mean=mean(counted), std=stdev(counted) if len(counted) > 1 else None)


def _format_score(spread: Spread | None, *, percent: bool) -> str:
    """Return a score with its standard deviation, or a dash."""
    if spread is None:
        return "-"
    factor = 100 if percent else 1
    text = f"{factor * spread.mean:.2f}"
    return text if spread.std is None else f"{text} ± {factor * spread.std:.2f}"


def _title(table: Reproduction) -> str:
    return f"{table.paper} on {table.data}, {table.num_axes}D, protocol {table.protocol}"


def _markdown(table: Reproduction, rows: Sequence[Sequence[str]]) -> str:
    notes = "\n".join(f"- {line}" for line in table_notes(table))
    return f"# {_title(table)}\n\n{as_markdown(rows)}\n\n{notes}\n"


def _html(table: Reproduction, rows: Sequence[Sequence[str]]) -> str:
    """Return a self-contained HTML page."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    notes = "\n".join(f"<li>{html.escape(line)}</li>" for line in table_notes(table))
    style = (
        "body{font:15px/1.5 sans-serif;margin:2em;max-width:110em}table{border-collapse:collapse}"
        "th,td{padding:.25em .7em;border-bottom:1px solid #ccc;text-align:right}"
        "th:first-child,td:first-child{text-align:left}"
    )
    title = html.escape(_title(table))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head>\n<body><h1>{title}</h1>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n"
        f"<ul>\n{notes}\n</ul></body></html>\n"
    )
