"""`scanseg reproduce`."""

from pathlib import Path
from typing import Annotated, Literal

from scanseg.cli.console import print_line, show_table
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    TRAINING,
    Device,
    OutputFolder,
    Settings,
    StopAfterMinutes,
    Workers,
    read_numbers,
    split_names,
)
from scanseg.cli.report import write_final_report
from scanseg.progress_display import show_progress


def reproduce(
    paper: Literal["msvm-unet", "xlstm-unet"],
    source: Path | None = None,
    /,
    *,
    data: Annotated[str, COMMON],
    output: OutputFolder,
    protocol: Annotated[Literal["published", "held-out"], COMMON] = "held-out",
    baselines: Annotated[str, COMMON] = "",
    quick: Annotated[bool, COMMON] = False,
    resume: Annotated[bool, COMMON] = False,
    variant: Annotated[Literal["bot", "enc"], TRAINING] = "enc",
    dims: Annotated[Literal[2, 3] | None, TRAINING] = None,
    optimizer: Annotated[Literal["sgd", "adamw"], TRAINING] = "sgd",
    encoder_weights: Annotated[Path | None, TRAINING] = None,
    from_scratch: Annotated[bool, TRAINING] = False,
    seeds: Annotated[str, TRAINING] = "",
    max_minutes: Annotated[float | None, TRAINING] = None,
    device: Device = "auto",
    num_workers: Workers = None,
    prepare: Annotated[bool, ADVANCED] = False,
    no_report: Annotated[bool, ADVANCED] = False,
    stop_after_minutes: StopAfterMinutes = None,
    settings: Settings = (),
) -> None:
    """Reproduce a paper's experiment beside baselines and published numbers.

    The output folder gets `table.md`, `.csv`, `.html` and `.json`, and a model folder for each training. Ctrl-C saves
    the state. The same command with `--resume` continues, without the data set.

    Args:
        paper: Paper to reproduce.
        source: Folder of the data set, in any form that `scanseg data convert` reads. Not needed with `--resume`.
        data: Name of the data set. For `msvm-unet`: `synapse`, `acdc`, `kvasir-seg`. For `xlstm-unet`: `abdomen-mr`,
            `endovis17`, `neurips-cell`, `brats23`, `dsb2018`, `kvasir-seg`, `hippocampus`.
        output: Folder to write.
        protocol: Choices of the experiment. `published` follows the paper, also in its metric rule. `held-out` chooses
            weights on a validation part, leaves empty masks out, measures distances in mm, and trains three seeds.
        baselines: Networks that train beside the paper's, separated by commas, or `all`: `no-sequence`, `mamba`
            (xlstm-unet only), `plain-unet`, `residual-unet`, `dynunet`, `segresnet`, `unetr`, `swin-unetr`. Defaults to
            no baselines.
        quick: Run the same steps at a small size. This takes seconds on a CPU, and its scores have no meaning.
        resume: Continue the reproduction in the output folder. Baselines and seeds may be added.
        variant: Position of the sequence layers of xLSTM-UNet: `bot` (bottleneck) or `enc` (encoder).
        dims: Number of spatial axes of xLSTM-UNet. Defaults to the paper's choice, or to 2 if it has both.
        optimizer: Optimizer of xLSTM-UNet with `--protocol published`: `sgd` (published code) or `adamw` (published
            text).
        encoder_weights: VMamba's ImageNet weights for the encoder of MSVM-UNet. Defaults to none, which requires
            `--from-scratch`.
        from_scratch: Train MSVM-UNet without ImageNet weights.
        seeds: Seeds, separated by commas. Defaults to 0 for `published` and to 0,1,2 for `held-out`.
        max_minutes: End each training after this many minutes. The learning rate follows the clock. Defaults to the
            plan's limit.
        prepare: Convert, plan and preprocess only. Trainings may then run on another machine, with `--resume`.
        no_report: Write no report (`report.html` in the output folder).
    """
    from scanseg.errors import InterruptionError
    from scanseg.papers import ReproductionRequest, find_experiment, table_notes, table_rows
    from scanseg.papers import reproduce as run
    from scanseg.runtime import RunContext

    request = ReproductionRequest(
        paper=paper,
        data=data,
        num_axes=dims,
        protocol=protocol,
        variant=variant,
        optimizer=optimizer,
        encoder_weights=encoder_weights,
        from_scratch=from_scratch,
        baselines=split_names(baselines),
        seeds=read_numbers(seeds, "--seeds"),
        quick=quick,
        max_minutes=max_minutes,
        settings=settings,
    )
    with show_progress() as progress:
        try:
            table = run(
                source,
                output,
                request,
                resume=resume,
                prepare_only=prepare,
                stop_after_minutes=stop_after_minutes,
                context=RunContext(device=device, num_workers=num_workers, progress=progress),
            )
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    head, *rows = table_rows(table, find_experiment(paper, data, num_axes=dims).measures)
    show_table(head, rows)
    for line in table_notes(table):
        print_line(line)
    print_line(f"written: {output / 'table.md'}, .csv, .html and .json")
    if not no_report and not prepare:
        write_final_report(output)
