"""`scanseg crossval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from scanseg.cli.console import format_score, say, show_table, suggest
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import Recipe, Settings, Workers
from scanseg.cli.progress import show_progress

if TYPE_CHECKING:
    from scanseg.specs import CrossValidationRecord


def crossval(
    source: Annotated[Path, Parameter(name="DATASET_OR_PLAN")],
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    recipes: Annotated[tuple[Recipe, ...], Parameter(name="--recipe")] = (),
    devices: str = "auto",
    initial_weights: Path | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    no_ensembles: bool = False,
    resume: bool = False,
    store: Path | None = None,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Train every fold, choose recipes and postprocessing on validation, and make the folds one model.

    `scanseg predict` takes the output folder as a model: it averages the folds, of one recipe or of the best pair, and
    removes what postprocessing is to remove.

    Args:
        source: Folder in nnU-Net's raw layout, or a plan made by `scanseg plan`.
        output: Folder of the study.
        recipes: The way to plan, for a data set; given again, the ways compete, and so do their pairs.
        devices: Devices that train folds at the same time, such as `cuda:0,cuda:1`.
        initial_weights: Model folder to begin with (fine-tuning).
        max_minutes: End the training of each fold after this time; the learning rate falls with the clock.
        batch_size: Patches or slices in a batch, instead of the plan's.
        no_ensembles: Let no pairs of recipes compete.
        resume: Go on with the study in the output folder; folds that are done are kept. Other options need not be given
            again, and must be those with which it began if they are.
        store: Folder for the preprocessed cases, kept for other trainings with the same preprocessing.
    """
    from scanseg import api
    from scanseg.errors import InterruptionError

    with show_progress() as progress:
        try:
            result = api.cross_validate(
                source,
                output,
                recipes=recipes,
                devices=[name.strip() for name in devices.split(",")],
                initial_weights=initial_weights,
                max_minutes=max_minutes,
                batch_size=batch_size,
                ensembles=not no_ensembles,
                resume=resume,
                store=store,
                settings=settings,
                num_workers=num_workers,
                progress=progress,
            )
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    _show(result.record)
    say(f"{output}: the {result.record.chosen} folds as one model")
    suggest("predict with it", "predict", output, "IMAGES", "-o", "OUTPUT")


def _show(record: "CrossValidationRecord") -> None:
    """Write a table of the labels' Dice, before and after postprocessing."""
    columns, rows = ["label"], [[name] for name in (*record.configurations[0].labels, "mean")]
    for each in record.outcomes:
        columns += [each.name, "postprocessed"]
        before = [*each.labels.values(), each.mean_dice]
        after = [*each.postprocessed_labels.values(), each.postprocessed_mean_dice]
        for row, pair in zip(rows, zip(before, after, strict=True), strict=True):
            row += map(format_score, pair)
    show_table(columns, rows)
    for each in record.outcomes:
        spec = each.postprocessing
        kept = [*(["all foreground"] if spec.largest_foreground else []), *spec.largest_component]
        if kept:
            say(f"{each.name}: the largest component is kept of {', '.join(kept)}")
