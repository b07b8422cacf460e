"""The report of a reproduction as one HTML file."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from scanseg.errors import InputError
from scanseg.figures import draw_dice_over_time
from scanseg.messages import counted
from scanseg.models import ModelFolder, TrainedWeights
from scanseg.papers.experiments import find_experiment
from scanseg.papers.table import TABLE, table_notes, table_rows
from scanseg.reports import (
    Cell,
    Page,
    Section,
    Table,
    check_packages,
    colours_of_labels,
    make_chart,
    score_sections,
    write_page,
)
from scanseg.specs import Report, Reproduction


def is_reproduction(folder: Path) -> bool:
    """Return whether a folder has the table of a reproduction.

    Args:
        folder: The folder.
    """
    return (folder / f"{TABLE}.json").is_file()


def write_reproduction_report(folder: Path, output: Path) -> None:
    """Write the report of a reproduction.

    It has the table, curves, and the test scores of the paper's network.

    Args:
        folder: Folder of the reproduction.
        output: HTML file.

    Raises:
        InputError: The table cannot be read.
        UsageError: A package is missing.
    """
    check_packages()
    table = Reproduction.read(folder / f"{TABLE}.json")
    experiment = find_experiment(table.paper, table.data, num_axes=table.num_axes)
    head, *rows = table_rows(table, experiment.measures)
    trainings = _find_trainings(folder)
    metrics = {method: [each.metrics.read() for each in folders] for method, folders in trainings.items()}
    sections = [
        Section(
            "Table",
            tuple(table_notes(table)),
            tables=(Table(tuple(head), [tuple(map(Cell, row)) for row in rows]),),
        )
    ]
    if table.paper in metrics:
        chart = make_chart(
            partial(draw_dice_over_time, trainings=metrics, baseline=table.paper),
            alternative="Dice on validation patches over the time of training",
            caption="One line per training",
            num_elements=sum(len(run) for runs in metrics.values() for run in runs),
        )
        sections.append(Section("Curves", charts=(chart,)))
    scored = next(_find_scores(trainings.get(table.paper, [])), None)
    if scored is not None:
        model, report = scored
        text = f"The sections below have the test scores of {model.path.parent.name}, {model.path.name}."
        sections.append(Section("Test cases", (text,)))
        sections += score_sections(report, colours_of_labels(model.plan.dataset))
    own = next((row for row in table.rows if row.origin == "here" and row.method == table.paper), None)
    dice = None if own is None else own.measures.get("dice")
    page = Page(
        f"{table.data}: reproduction of {table.paper}",
        f"Reproduction in {folder}, protocol {table.protocol}",
        (
            *([] if dice is None else [(f"{100 * dice.mean:.2f} %", f"mean Dice of {table.paper}")]),
            (str(sum(map(len, trainings.values()))), "trainings"),
        ),
        tuple(sections),
        (
            (f"{counted(len(table.missing), 'result')} missing, first {table.missing[0]}.",)
            if table.missing
            else ()
        ),
    )
    write_page(page, output)


def _find_trainings(folder: Path) -> dict[str, list[ModelFolder]]:
    """Return the trainings of each method."""
    found: dict[str, list[ModelFolder]] = {}
    for path in sorted(folder.glob("*/seed_*")):
        if path.name.endswith("-initial") or not ModelFolder.exists(path):
            continue
        found.setdefault(path.parent.name, []).append(ModelFolder.open(path))
    return found


def _find_scores(folders: list[ModelFolder]) -> Iterator[tuple[ModelFolder, Report]]:
    """Yield trainings with the scores of their test cases."""
    choices: tuple[TrainedWeights, ...] = ("last", "best")
    for folder in folders:
        for weights in choices:
            try:
                report = folder.scores.read_test(weights)
            except InputError:
                continue
            if report is not None:
                yield folder, report
