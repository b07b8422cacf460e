"""`scanseg train`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import format_duration, format_score, say, show_table, suggest
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import Device, Precision, Recipe, Settings, Workers
from scanseg.cli.progress import show_progress
from scanseg.messages import counted


def train(
    source: Annotated[Path, Parameter(name="DATASET_OR_PLAN")],
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    recipe: Recipe | None = None,
    fold: int | Literal["all"] | None = None,
    initial_weights: Path | None = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: Precision | None = None,
    device: Device = "auto",
    resume: bool = False,
    keep_predictions: bool = False,
    store: Path | None = None,
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Train a network on a raw data set or a plan, and write a model folder.

    Ctrl-C and SIGTERM save the state first; the same command with `--resume` goes on from it.

    Args:
        source: Folder in nnU-Net's raw layout, or a plan made by `scanseg plan`.
        output: The model folder to write.
        recipe: The way to plan, for a data set; a plan has its own.
        fold: Number of the fold, or `all`: every case trains and none validates; 0 where it is not given.
        initial_weights: Model folder to begin with (fine-tuning); a data set takes over its plan too. Where the
            labels differ the head begins anew.
        epochs: Instead of the plan's.
        max_minutes: End after this time; the learning rate falls with the clock.
        batch_size: Patches or slices in a batch, instead of the plan's.
        lr: Highest learning rate, instead of the plan's.
        seed: Of all that is drawn, instead of the plan's.
        precision: Of products, instead of the plan's. `auto` is bfloat16 on a GPU that has it, else float32; float16
            is for older GPUs, its loss is scaled so that small gradients are not lost.
        resume: Go on with the training in the model folder, on its cases; other options need not be given again,
            and must be those with which it began if they are.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        store: Folder for the preprocessed cases, kept for other trainings with the same preprocessing.
    """
    from scanseg import api
    from scanseg.errors import InterruptionError

    with show_progress() as progress:
        try:
            result = api.train(
                source,
                output,
                recipe=recipe,
                fold=fold,
                initial_weights=initial_weights,
                epochs=epochs,
                max_minutes=max_minutes,
                batch_size=batch_size,
                lr=lr,
                seed=seed,
                precision=precision,
                device=device,
                resume=resume,
                keep_predictions=keep_predictions,
                store=store,
                settings=settings,
                num_workers=num_workers,
                progress=progress,
            )
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    if not result.is_main_process:
        return
    if result.renewed_parameters:
        renewed = counted(len(result.renewed_parameters), "tensor")
        say(f"the labels are not those of {initial_weights}: {renewed} of the head began anew")
    if result.mean_dice is not None:
        rows = [*result.scores.items(), ("mean", result.mean_dice)]
        show_table(("label", "validation Dice"), [(label, format_score(score)) for label, score in rows])
    say(f"{result.model}: {counted(result.epochs_done, 'epoch')} in {format_duration(result.seconds)}")
    suggest("predict with it", "predict", result.model, "IMAGES", "-o", "OUTPUT")
