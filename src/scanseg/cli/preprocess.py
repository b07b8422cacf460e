"""`scanseg preprocess`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from scanseg.cli.console import say, suggest
from scanseg.cli.options import Recipe, Settings, Workers
from scanseg.cli.progress import show_progress


def preprocess(
    source: Annotated[Path, Parameter(name="DATASET_OR_PLAN")],
    /,
    *,
    store: Path,
    recipe: Recipe | None = None,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Make the preprocessed cases that trainings read, such as on a machine without a GPU.

    A training with the same data set, preprocessing and `--store` finds them, also on a machine that has neither the
    images nor the libraries to read them.

    Args:
        source: Folder in nnU-Net's raw layout, or a plan made by `scanseg plan`.
        store: Folder for the preprocessed cases; those that are there already are kept.
        recipe: The way to plan, for a data set; a plan has its own.
    """
    from scanseg import api

    with show_progress() as progress:
        folder = api.preprocess(
            source, store=store, recipe=recipe, settings=settings, num_workers=num_workers, progress=progress
        )
    say(f"{folder}")
    suggest("train on it", "train", source, "-o", "MODEL", "--store", store)
