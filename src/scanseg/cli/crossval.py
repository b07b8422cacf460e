"""`scanseg crossval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from scanseg.cli.console import format_score, print_line, show_table, suggest_command
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    HARDWARE,
    TRAINING,
    DatasetOrPlan,
    Engine,
    OutputFolder,
    PlanSize,
    RayAddress,
    Recipe,
    Settings,
    SlurmOptions,
    Store,
    Workers,
)
from scanseg.cli.report import write_final_report
from scanseg.errors import InterruptionError
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.specs import CrossValidationRecord


def crossval(
    source: DatasetOrPlan,
    /,
    *,
    output: OutputFolder,
    recipes: Annotated[tuple[Recipe, ...], COMMON, Parameter(name="--recipe")] = (),
    size: PlanSize = None,
    resume: Annotated[bool, COMMON] = False,
    initial_weights: Annotated[Path | None, TRAINING] = None,
    max_minutes: Annotated[float | None, TRAINING] = None,
    batch_size: Annotated[int | None, TRAINING] = None,
    devices: Annotated[str, HARDWARE] = "auto",
    num_workers: Workers = None,
    on: Engine = None,
    ray_address: RayAddress = None,
    slurm_options: SlurmOptions = "",
    no_ensembles: Annotated[bool, ADVANCED] = False,
    no_report: Annotated[bool, ADVANCED] = False,
    store: Store = None,
    settings: Settings = (),
) -> None:
    """Train every fold and combine the folds into one model.

    The validation cases choose the recipe, or the pair of recipes, and the postprocessing. `scanseg predict` takes the
    output folder as a model. It averages the folds and postprocesses the label map.

    Args:
        output: Folder of the cross-validation.
        recipes: Recipe for a data set. Plan files have their own. Repeat to let several recipes and their pairs
            compete. Defaults to `xlstm-unet`, for colour pictures to `xlstm-unet-fast`, or to the plan of
            `--initial-weights`.
        resume: Continue the cross-validation in the output folder. Finished folds are kept. Other options may be left
            out. If given, they must have their values of the first start.
        initial_weights: Model folder whose weights every fold starts from (fine-tuning). A data set also takes over
            its plan. Defaults to random weights.
        max_minutes: End the training of each fold after this many minutes. The learning rate follows the clock.
            Defaults to the plan's limit.
        batch_size: Patches or slices per batch. Defaults to the plan's.
        devices: Devices separated by commas, such as `cuda:0,cuda:1`. Each trains one fold at a time. `auto` is the
            first available of `cuda`, `mps`, `cpu`.
        no_ensembles: Exclude pairs of recipes from the choice.
        no_report: Write no report (`report.html` in the output folder).
    """
    with show_progress(f"preparing a cross-validation on {source} in {output}") as progress:
        from scanseg import api
        from scanseg.cohort import split_options

        try:
            result = api.cross_validate(
                source,
                output,
                recipes=recipes,
                size=size,
                devices=[name.strip() for name in devices.split(",")],
                initial_weights=initial_weights,
                max_minutes=max_minutes,
                batch_size=batch_size,
                ensembles=not no_ensembles,
                resume=resume,
                store=store,
                settings=settings,
                num_workers=num_workers,
                on=on,
                ray_address=ray_address,
                slurm_options=split_options(slurm_options),
                progress=progress,
            )
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    _show(result.record)
    print_line(f"{output}: one model of the {result.record.chosen} folds")
    if not no_report:
        write_final_report(output)
    suggest_command("to predict", "predict", output, "IMAGES", "-o", "OUTPUT")


def _show(record: "CrossValidationRecord") -> None:
    """Print the Dice of each label before and after postprocessing."""
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
            print_line(f"{each.name}: only the largest component is kept of {', '.join(kept)}")
