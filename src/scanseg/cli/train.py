"""`scanseg train`."""

from pathlib import Path
from typing import Annotated, Literal

from scanseg.cli.console import format_score, is_first_process, print_line, show_table, suggest_command
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    HARDWARE,
    TRAINING,
    DatasetOrPlan,
    Device,
    OutputFolder,
    PlanSize,
    Precision,
    Recipe,
    Settings,
    Store,
    Workers,
)
from scanseg.cli.report import write_final_report
from scanseg.errors import InterruptionError
from scanseg.messages import counted, format_duration
from scanseg.progress_display import show_progress


def train(
    source: DatasetOrPlan,
    /,
    *,
    output: OutputFolder,
    recipe: Annotated[Recipe | None, COMMON] = None,
    size: PlanSize = None,
    fold: Annotated[int | Literal["all"] | None, COMMON] = None,
    resume: Annotated[bool, COMMON] = False,
    initial_weights: Annotated[Path | None, TRAINING] = None,
    encoder_weights: Annotated[Path | None, TRAINING] = None,
    epochs: Annotated[int | None, TRAINING] = None,
    max_minutes: Annotated[float | None, TRAINING] = None,
    batch_size: Annotated[int | None, TRAINING] = None,
    lr: Annotated[float | None, TRAINING] = None,
    seed: Annotated[int | None, TRAINING] = None,
    device: Device = "auto",
    precision: Annotated[Precision | None, HARDWARE] = None,
    num_workers: Workers = None,
    store: Store = None,
    keep_predictions: Annotated[bool, ADVANCED] = False,
    no_report: Annotated[bool, ADVANCED] = False,
    settings: Settings = (),
) -> None:
    """Train a network and write a model folder.

    Ctrl-C and SIGTERM save the state. The same command with `--resume` continues.

    Args:
        output: Model folder to write.
        recipe: Recipe for a data set. Plan files have their own. Defaults to `xlstm-unet`, for colour pictures to
            `xlstm-unet-fast`, or to the plan of `--initial-weights`.
        fold: Number of the fold, from 0, or `all` to train on every case without validation. Defaults to 0, or with
            `--resume` to the fold of the model folder.
        resume: Continue the training in the model folder. `--epochs` and `--max-minutes` may be changed, also of a
            finished training. Other options may be left out. If given, they must have their values of the first start.
        initial_weights: Model folder whose weights the training starts from (fine-tuning). A data set also takes over
            its plan. The head is initialized again if the labels differ. Defaults to random weights.
        encoder_weights: File of ImageNet weights for the encoder of MSVM-UNet: VMamba's checkpoint, or the file from
            `scanseg weights import --network vmamba`. Defaults to random weights.
        epochs: Number of epochs. Defaults to the plan's.
        max_minutes: End the training after this many minutes. The learning rate follows the clock. Defaults to the
            plan's limit.
        batch_size: Patches or slices per batch. Defaults to the plan's.
        lr: Highest learning rate. Defaults to the plan's.
        seed: Seed of all random draws. Defaults to the plan's.
        precision: Number format of matrix products. `auto` is bfloat16 on a GPU that supports it, otherwise float32.
            `float16` is for older GPUs. It scales the loss to keep small gradients. Defaults to the plan's.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        no_report: Write no report (`report.html` in the model folder).
    """
    work = (
        f"continuing the training in {output}" if resume else f"preparing a training on {source} in {output}"
    )
    with show_progress(work if is_first_process() else None) as progress:
        from scanseg import api

        try:
            result = api.train(
                source,
                output,
                recipe=recipe,
                size=size,
                fold=fold,
                initial_weights=initial_weights,
                encoder_weights=encoder_weights,
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
    if result.was_finished:
        print_line(
            f"{result.model}: the training was finished. To continue it, give higher --epochs or --max-minutes."
        )
    if result.renewed_parameters:
        renewed = counted(len(result.renewed_parameters), "tensor")
        print_line(f"note: labels differ from {initial_weights}. Initialized again: {renewed} of the head")
    if result.mean_dice is not None:
        rows = [*result.scores.items(), ("mean", result.mean_dice)]
        show_table(("label", "validation Dice"), [(label, format_score(score)) for label, score in rows])
    print_line(f"{result.model}: {counted(result.epochs_done, 'epoch')} in {format_duration(result.seconds)}")
    if not no_report:
        write_final_report(Path(result.model), device=device)
    suggest_command("to predict", "predict", result.model, "IMAGES", "-o", "OUTPUT")
