"""`scanseg preprocess`."""

from pathlib import Path
from typing import Annotated

from scanseg.cli.console import print_line, suggest_command
from scanseg.cli.options import (
    COMMON,
    DatasetOrPlan,
    Engine,
    PlanSize,
    RayAddress,
    Recipe,
    Settings,
    SlurmOptions,
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
    on: Engine = None,
    ray_address: RayAddress = None,
    slurm_options: SlurmOptions = "",
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
        from scanseg.cohort import split_options

        folder = api.preprocess(
            source,
            store=store,
            recipe=recipe,
            size=size,
            settings=settings,
            num_workers=num_workers,
            on=on,
            ray_address=ray_address,
            slurm_options=split_options(slurm_options),
            progress=progress,
        )
    print_line(f"{folder}")
    suggest_command("to train", "train", source, "-o", "MODEL", "--store", store)
