"""`scanseg reproduce`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import Device, Settings, Workers, read_numbers, split_names
from scanseg.cli.progress import show_progress


def reproduce(
    paper: Literal["msvm-unet", "xlstm-unet"],
    source: Path | None = None,
    /,
    *,
    data: str,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    protocol: Literal["published", "held-out"] = "held-out",
    variant: Literal["bot", "enc"] = "enc",
    dims: Literal[2, 3] | None = None,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    encoder_weights: Path | None = None,
    from_scratch: bool = False,
    baselines: str = "",
    seeds: str = "",
    quick: bool = False,
    max_minutes: float | None = None,
    stop_after_minutes: float | None = None,
    prepare: bool = False,
    resume: bool = False,
    device: Device = "auto",
    num_workers: Workers = None,
    settings: Settings = (),
) -> None:
    """Run an experiment of a paper, and set its numbers beside the published ones and those of baselines.

    Writes `table.md`, `.csv`, `.html` and `.json`, and a model folder for each training. Ctrl-C saves what is done; the
    same command with `--resume`, which needs no data set any more, goes on.

    Args:
        paper: The paper.
        source: Folder of the data set, in any form that `scanseg data convert` knows.
        data: Name of the data set: synapse, acdc, kvasir-seg for msvm-unet; abdomen-mr, endovis17, neurips-cell,
            brats23, and dsb2018, kvasir-seg, hippocampus for xlstm-unet.
        output: Folder to write.
        protocol: `published`: every choice and the metric rule of the paper. `held-out`: a validation part chooses, empty
            masks are not counted, distances are in mm, three seeds.
        variant: Where xLSTM-UNet has its sequence layers: at the bottleneck, or along the encoder.
        dims: Axes of xLSTM-UNet, where the paper has both.
        optimizer: Of xLSTM-UNet as published: that of the code (sgd) or of the text (adamw).
        encoder_weights: VMamba's ImageNet weights for the encoder of MSVM-UNet.
        from_scratch: Train MSVM-UNet without them.
        baselines: Networks that train beside it, separated by commas, or `all`: no-sequence, mamba (xlstm-unet),
            plain-unet, residual-unet, dynunet, segresnet, unetr, swin-unetr.
        seeds: Separated by commas; 0 as published and 0,1,2 with held-out cases if not given.
        quick: The same steps at a small size: seconds on a CPU, scores without meaning.
        max_minutes: End each training after this time; the learning rate falls with the clock.
        stop_after_minutes: Stop the command after this time, to go on later.
        prepare: Convert, plan and preprocess only, such as on another machine than that which trains.
        resume: Go on with the reproduction in the output folder; baselines and seeds may be added.
    """
    from scanseg.errors import InterruptionError
    from scanseg.papers import ReproductionRequest, find_experiment, table_notes, table_rows
    from scanseg.papers import reproduce as run

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
        device=device,
        num_workers=num_workers,
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
                progress=progress,
            )
        except InterruptionError as error:
            raise Interrupt(error.signal_number, str(error)) from error
    head, *rows = table_rows(table, find_experiment(paper, data, num_axes=dims).measures)
    show_table(head, rows)
    for line in table_notes(table):
        say(line)
    say(f"{output / 'table.md'}, .csv, .html and .json hold this table")
