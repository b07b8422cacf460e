"""`scanseg plan`."""

from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.cli.console import show_table, suggest
from scanseg.cli.options import OutputFile, Overwrite, Recipe, Settings, Workers, require_new_file
from scanseg.cli.progress import show_progress

if TYPE_CHECKING:
    from scanseg.specs import Plan


def plan(
    dataset: Path,
    /,
    *,
    recipe: Recipe | None = None,
    like: Path | None = None,
    output: OutputFile,
    overwrite: Overwrite = False,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Measure a data set and decide how to train on it; the plan can be read, changed and trained.

    Args:
        dataset: Folder in nnU-Net's raw layout.
        recipe: The way to plan; `xlstm-unet` where it is not given.
        like: Model folder whose plan the data set takes over instead, to be trained from its weights.
        output: File to write the plan to, JSON; new, or to be replaced by --overwrite.
    """
    from scanseg import api
    from scanseg.files import write_text

    require_new_file(output, overwrite=overwrite)
    with show_progress() as progress:
        made = api.make_plan(
            dataset, recipe=recipe, like=like, settings=settings, num_workers=num_workers, progress=progress
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, made.to_json())
    show_table(("plan", str(output)), _summary(made), align="left")
    suggest("train it", "train", output, "-o", "MODEL")


def _summary(made: "Plan") -> list[tuple[str, str]]:
    from scanseg.planning import step_memory

    preprocessing, sampling, training = made.preprocessing, made.sampling, made.training
    grid = preprocessing.slice_size or preprocessing.spacing
    return [
        ("recipe", made.recipe),
        ("network", made.network.kind),
        ("slice size" if preprocessing.slice_size else "spacing (mm)", _sizes(grid) if grid else "as it is"),
        ("patch size", _sizes(sampling.patch_size)),
        ("batch size", str(sampling.batch_size)),
        ("GPU memory of a step", f"about {step_memory(made).total_bytes / 2**30:.1f} GiB"),
        ("epochs", str(training.epochs)),
        ("iterations per epoch", str(training.iterations_per_epoch or "every slice once")),
        ("optimizer", f"{training.optimizer.kind}, lr {training.optimizer.lr:g}"),
    ]


def _sizes(sizes: tuple[float | None, ...]) -> str:
    """Write sizes along the axes; one that is not changed is a dash."""
    return " x ".join("-" if size is None else f"{size:g}" for size in sizes)
