"""`scanseg plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from scanseg.cli.console import format_memory, print_line, show_table, suggest_command
from scanseg.cli.options import (
    COMMON,
    TRAINING,
    Dataset,
    OutputFile,
    Overwrite,
    Recipe,
    Settings,
    Workers,
    require_new_file,
)
from scanseg.cli.progress import show_progress

if TYPE_CHECKING:
    from scanseg.specs import Plan


def plan(
    dataset: Dataset,
    /,
    *,
    output: OutputFile,
    overwrite: Overwrite = False,
    recipe: Annotated[Recipe | None, COMMON] = None,
    like: Annotated[Path | None, TRAINING] = None,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Plan a training on a data set and write the plan file.

    The plan is a JSON file with every setting. Read it, edit it, and pass it to `scanseg train`.

    Args:
        output: JSON file of the plan. An existing file is replaced only with `--overwrite`.
        recipe: Recipe that makes the plan. Defaults to `xlstm-unet`.
        like: Model folder whose plan this data set takes over, for fine-tuning. Excludes `--recipe`. Defaults to a
            new plan of the recipe.
    """
    from scanseg import api
    from scanseg.files import write_text
    from scanseg.planning import describe_decisions

    require_new_file(output, overwrite=overwrite)
    with show_progress() as progress:
        made = api.make_plan(
            dataset, recipe=recipe, like=like, settings=settings, num_workers=num_workers, progress=progress
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, made.to_json())
    show_table(("plan", str(output)), _summary(made), align="left")
    for line in describe_decisions(made):
        print_line(line)
    suggest_command("to train", "train", output, "-o", "MODEL")


def _summary(made: "Plan") -> list[tuple[str, str]]:
    from scanseg.planning import step_memory

    preprocessing, sampling, training = made.preprocessing, made.sampling, made.training
    grid = preprocessing.slice_size or preprocessing.spacing
    return [
        ("recipe", made.recipe),
        ("network", made.network.kind),
        ("slice size" if preprocessing.slice_size else "spacing (mm)", _sizes(grid) if grid else "unchanged"),
        ("patch size", _sizes(sampling.patch_size)),
        ("batch size", str(sampling.batch_size)),
        ("GPU memory of a step", f"about {format_memory(step_memory(made).total_bytes)}"),
        ("epochs", str(training.epochs)),
        ("iterations per epoch", str(training.iterations_per_epoch or "every slice once")),
        ("optimizer", f"{training.optimizer.kind}, lr {training.optimizer.lr:g}"),
    ]


def _sizes(sizes: tuple[float | None, ...]) -> str:
    """Format sizes along the axes, with a dash for an unchanged axis."""
    return " x ".join("-" if size is None else f"{size:g}" for size in sizes)
