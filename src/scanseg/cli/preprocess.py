"""`scanseg preprocess`."""

from pathlib import Path
from typing import Annotated

from scanseg.cli.console import print_line, suggest_command
from scanseg.cli.options import (
    COMMON,
    DatasetOrPlan,
    PlanSize,
    RayAddress,
    RayOnly,
    Recipe,
    Settings,
    Workers,
)
from scanseg.progress_display import show_progress


def preprocess(
    source: DatasetOrPlan,
    /,
    *,
    store: Annotated[Path, COMMON],
    recipe: Annotated[Recipe | None, COMMON] = None,
    size: PlanSize = None,
    num_workers: Workers = None,
    on: RayOnly = None,
    ray_address: RayAddress = None,
    settings: Settings = (),
) -> None:
    """Preprocess a data set for training.

    This needs no GPU. Trainings with the same data set, preprocessing and `--store` use these cases. They need neither
    the images nor the libraries that read them.

    Args:
        store: Folder of the preprocessed cases. Existing cases are reused.
        recipe: Recipe for a data set. Plan files have their own. Defaults to `xlstm-unet`, for colour pictures to
            `xlstm-unet-fast`.
    """
    with show_progress(f"preprocessing {source}") as progress:
        from scanseg import api

        folder = api.preprocess(
            source,
            store=store,
            recipe=recipe,
            size=size,
            settings=settings,
            num_workers=num_workers,
            on=on,
            ray_address=ray_address,
            progress=progress,
        )
    print_line(f"{folder}")
    suggest_command("to train", "train", source, "-o", "MODEL", "--store", store)
