"""`scanseg compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from scanseg.cli.console import print_line, show_table
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    HARDWARE,
    TRAINING,
    Engine,
    OutputFolder,
    RayAddress,
    Settings,
    SlurmOptions,
    StopAfterMinutes,
    Workers,
    read_numbers,
    split_names,
)
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.specs import ComparisonSpec


def run(
    comparison: str,
    dataset: Path | None = None,
    /,
    *,
    output: OutputFolder,
    arms: Annotated[str, COMMON] = "",
    resume: Annotated[bool, COMMON] = False,
    seeds: Annotated[str, TRAINING] = "",
    folds: Annotated[str, TRAINING] = "",
    max_minutes: Annotated[float | None, TRAINING] = None,
    devices: Annotated[str, HARDWARE] = "auto",
    num_workers: Workers = None,
    on: Engine = None,
    ray_address: RayAddress = None,
    slurm_options: SlurmOptions = "",
    prepare: Annotated[bool, ADVANCED] = False,
    stop_after_minutes: StopAfterMinutes = None,
    settings: Settings = (),
) -> None:
    """Compare ways to train over several seeds and folds.

    A table shows the scores of every arm and tests the differences from the baseline. The output folder gets
    `comparison.json`, `.md`, `.csv` and `.png`, and a model folder for each training. Ctrl-C saves the state. The same
    command with `--resume` continues, without the data set.

    Args:
        comparison: JSON file of the comparison, or a name from `scanseg compare list`.
        dataset: Data set folder in nnU-Net's raw layout. Not needed with `--resume`.
        output: Folder to write.
        arms: Names of arms to train, separated by commas, with the baseline among them. Defaults to all arms.
        resume: Continue the comparison in the output folder. Seeds and folds may be added.
        seeds: Seeds, separated by commas. Defaults to the seeds of the comparison.
        folds: Folds, separated by commas. Defaults to the folds of the comparison.
        max_minutes: End each training after this many minutes. The learning rate follows the clock. Defaults to the
            limit of the comparison.
        devices: Devices separated by commas, such as `cuda:0,cuda:1`. Each runs one training at a time. `auto` is the
            first available of `cuda`, `mps`, `cpu`.
        prepare: Plan and preprocess only. Trainings may then run on another machine, with `--resume`.
    """
    from scanseg.cohort import open_engine, split_options
    from scanseg.errors import InterruptionError, UsageError
    from scanseg.experiments import (
        ComparisonOptions,
        choose_arms,
        comparison_rows,
        run_comparison,
        table_notes,
    )
    from scanseg.papers import find_comparison
    from scanseg.runtime import RunContext

    spec = _changed(
        choose_arms(find_comparison(comparison), split_names(arms)),
        seeds=seeds,
        folds=folds,
        max_minutes=max_minutes,
        settings=settings,
    )
    options = ComparisonOptions(
        devices=split_names(devices) or ("auto",),
        stop_after_minutes=stop_after_minutes,
        prepare_only=prepare,
        resume=resume,
    )
    if on is not None and set(options.devices) != {"auto"}:
        raise UsageError("--on chooses the devices of its cluster. Leave out --devices.")
    with (
        show_progress() as progress,
        open_engine(
            on, ray_address=ray_address, slurm_options=split_options(slurm_options), output=output
        ) as engine,
    ):
        try:
            context = RunContext(num_workers=num_workers, progress=progress, engine=engine)
            record = run_comparison(spec, dataset, output, options, context=context)
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    print_line(spec.question)
    head, *rows = comparison_rows(record)
    show_table(head, rows)
    for line in table_notes(record):
        print_line(line)
    print_line(f"written: {output / 'comparison.md'}, .csv, .json and .png")


def list_comparisons() -> None:
    """List the comparisons of the package."""
    from scanseg.papers import ready_comparisons

    rows = [
        (name, spec.question, ", ".join(arm.name for arm in spec.all_arms))
        for name, spec in ready_comparisons().items()
    ]
    show_table(("name", "question", "arms"), rows, align="left")


def show(comparison: str, /) -> None:
    """Print a comparison as JSON, to edit and run as a file.

    Args:
        comparison: JSON file of the comparison, or a name from `scanseg compare list`.
    """
    from scanseg.papers import find_comparison

    print_line(find_comparison(comparison).to_json().rstrip("\n"))


def _changed(
    spec: "ComparisonSpec", *, seeds: str, folds: str, max_minutes: float | None, settings: tuple[str, ...]
) -> "ComparisonSpec":
    """Return a comparison with the changes of the options."""
    from scanseg.settings import apply_settings

    numbers = {"seeds": read_numbers(seeds, "--seeds"), "folds": read_numbers(folds, "--folds")}
    changes = [f"{name}={list(values)}" for name, values in numbers.items() if values]
    if max_minutes is not None:
        changes.append(f"max_minutes={max_minutes}")
    if settings:
        changes.append(f"settings={json.dumps([*spec.settings, *settings])}")
    return apply_settings(spec, changes)
