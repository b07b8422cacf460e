"""`scanseg study`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import Settings, Workers, read_numbers, split_names
from scanseg.cli.progress import show_progress

if TYPE_CHECKING:
    from scanseg.specs import ComparisonSpec


def run(
    study: str,
    dataset: Path | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    arms: str = "",
    seeds: str = "",
    folds: str = "",
    max_minutes: float | None = None,
    stop_after_minutes: float | None = None,
    prepare: bool = False,
    resume: bool = False,
    devices: str = "auto",
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Train a grid of networks with several seeds and folds, and say which differences are more than chance.

    Writes `comparison.json`, `comparison.md`, `comparison.csv`, `comparison.png` and a model folder for each training. Ctrl-C saves what is
    done; the same command with `--resume`, which needs no data set any more, goes on.

    Args:
        study: JSON file of the study, or the name of one that `scanseg study list` shows.
        dataset: Folder in nnU-Net's raw layout.
        output: Folder to write.
        arms: Names of the arms to train, separated by commas; all of them if not given.
        seeds: Separated by commas, instead of those of the study.
        folds: Separated by commas, instead of those of the study.
        max_minutes: End each training after this time; the learning rate falls with the clock.
        devices: One device, or several that train at the same time, such as `cuda:0,cuda:1`.
        stop_after_minutes: Stop the command after this time, to go on later.
        prepare: Plan and preprocess only, such as on another machine than that which trains.
        resume: Go on with the study in the output folder; seeds and folds may be added.
    """
    from scanseg.errors import InterruptionError
    from scanseg.experiments import (
        ComparisonOptions,
        choose_arms,
        comparison_rows,
        run_comparison,
        table_notes,
    )
    from scanseg.papers import find_comparison

    spec = _changed(
        choose_arms(find_comparison(study), split_names(arms)),
        seeds=seeds,
        folds=folds,
        max_minutes=max_minutes,
        settings=settings,
    )
    options = ComparisonOptions(
        devices=split_names(devices) or ("auto",),
        num_workers=num_workers,
        stop_after_minutes=stop_after_minutes,
        prepare_only=prepare,
    )
    with show_progress() as progress:
        try:
            record = run_comparison(spec, dataset, output, options, resume=resume, progress=progress)
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    say(spec.question)
    head, *rows = comparison_rows(record)
    show_table(head, rows)
    for line in table_notes(record):
        say(line)
    say(f"{output / 'comparison.md'}, .csv, .json and .png hold this")


def list_comparisons() -> None:
    """List the studies that come with scanseg."""
    from scanseg.papers import ready_comparisons

    rows = [
        (name, spec.question, ", ".join(arm.name for arm in spec.all_arms))
        for name, spec in ready_comparisons().items()
    ]
    show_table(("name", "question", "arms"), rows, align="left")


def show(study: str, /) -> None:
    """Write a study as JSON, to be changed and run as a file.

    Args:
        study: Name of a study, or a file.
    """
    from scanseg.papers import find_comparison

    say(find_comparison(study).to_json().rstrip("\n"))


def _changed(
    spec: "ComparisonSpec", *, seeds: str, folds: str, max_minutes: float | None, settings: tuple[str, ...]
) -> "ComparisonSpec":
    """Return the study with what the options change."""
    from scanseg.settings import apply_settings

    numbers = {"seeds": read_numbers(seeds, "--seeds"), "folds": read_numbers(folds, "--folds")}
    changes = [f"{name}={list(values)}" for name, values in numbers.items() if values]
    if max_minutes is not None:
        changes.append(f"max_minutes={max_minutes}")
    if settings:
        changes.append(f"settings={json.dumps([*spec.settings, *settings])}")
    return apply_settings(spec, changes)
