"""`scanseg plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from scanseg.cli.console import format_memory, print_line, show_table, suggest_command
from scanseg.cli.options import (
    COMMON,
    TRAINING,
    Dataset,
    Device,
    OutputFile,
    Overwrite,
    PlanSize,
    Recipe,
    Settings,
    Workers,
    require_new_file,
)
from scanseg.messages import format_duration
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.specs import Plan
    from scanseg.training import StepTiming


def plan(
    dataset: Dataset,
    /,
    *,
    output: OutputFile,
    overwrite: Overwrite = False,
    recipe: Annotated[Recipe | None, COMMON] = None,
    size: PlanSize = None,
    like: Annotated[Path | None, TRAINING] = None,
    device: Device = "auto",
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Plan a training on a data set and write the plan file.

    The plan is a JSON file with every setting. Read it, edit it, and pass it to `scanseg train`. The time of a training
    step is measured on the device by a few steps.

    Args:
        output: JSON file of the plan. An existing file is replaced only with `--overwrite`.
        recipe: Recipe that makes the plan. Defaults to `xlstm-unet`, for colour pictures to `xlstm-unet-fast`.
        like: Model folder whose plan this data set takes over, for fine-tuning. Excludes `--recipe`. Defaults to a
            new plan of the recipe.
    """
    require_new_file(output, overwrite=overwrite)
    with show_progress(f"planning a training on {dataset}") as progress:
        from scanseg import api

        made = api.make_plan(
            dataset,
            recipe=recipe,
            size=size,
            device=device,
            like=like,
            settings=settings,
            num_workers=num_workers,
            progress=progress,
        )
        timing = api.time_step(made, device=device, progress=progress)
    from scanseg.files import write_text
    from scanseg.planning import describe_decisions

    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, made.to_json())
    rows = [*_describe_data(dataset), *_describe_plan(made), *_describe_step(made, timing)]
    show_table(("plan", str(output)), rows, align="left")
    for line in describe_decisions(made):
        print_line(line)
    suggest_command("to train", "train", output, "-o", "MODEL")


def _describe_data(dataset: Path) -> list[tuple[str, str]]:
    """Return the rows of cases and folds."""
    from scanseg.dataset import find_splits, open_dataset

    raw = open_dataset(dataset)
    splits = find_splits(raw, required=False)
    return [("cases", str(len(raw.cases))), ("folds", f"{len(splits.folds)} ({splits.source})")]


def _describe_plan(made: "Plan") -> list[tuple[str, str]]:
    """Return the rows of grid, network and training."""
    from scanseg.models import count_parameters

    preprocessing, sampling, training = made.preprocessing, made.sampling, made.training
    grid = preprocessing.slice_size or preprocessing.spacing
    features = getattr(made.network, "features", None)
    stages = [("features by stage", ", ".join(map(str, features)))] if isinstance(features, tuple) else []
    limit = [] if training.max_minutes is None else [("time limit", f"{training.max_minutes:g} minutes")]
    return [
        ("recipe", made.recipe if made.size == "full" else f"{made.recipe}, size {made.size}"),
        ("network", f"{made.network.kind}, {count_parameters(made) / 1e6:.2f} million parameters"),
        *stages,
        ("slice size" if preprocessing.slice_size else "spacing (mm)", _sizes(grid) if grid else "unchanged"),
        ("patch size", _sizes(sampling.patch_size)),
        ("batch size", str(sampling.batch_size)),
        ("epochs", str(training.epochs)),
        ("iterations per epoch", str(training.iterations_per_epoch or "every slice once")),
        *limit,
        ("optimizer", f"{training.optimizer.kind}, lr {training.optimizer.lr:g}"),
    ]


def _describe_step(made: "Plan", timing: "StepTiming") -> list[tuple[str, str]]:
    """Return the rows of memory and time."""
    from scanseg.planning import step_memory

    free = format_memory(timing.free_bytes)
    iterations = made.training.iterations_per_epoch
    rows = [
        ("GPU memory of a step", f"about {format_memory(step_memory(made).total_bytes)}"),
        ("device", f"{timing.device}, {free} free"),
    ]
    if timing.seconds is None:
        needed = format_memory(timing.needed_bytes)
        return [*rows, ("time of a step", f"not measured, needs about {needed}: choose --size small")]
    rows.append(("time of a step", f"{timing.seconds:.2g} s"))
    if iterations is not None:
        epoch = timing.seconds * iterations
        total = format_duration(epoch * made.training.epochs)
        rows.append(("time of an epoch", f"{format_duration(epoch)}, {total} for all epochs"))
    return rows


def _sizes(sizes: tuple[float | None, ...]) -> str:
    """Format sizes along the axes, with a dash for an unchanged axis."""
    return " x ".join("-" if size is None else f"{size:.4g}" for size in sizes)
