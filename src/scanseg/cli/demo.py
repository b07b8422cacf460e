"""`scanseg demo`."""

from pathlib import Path
from typing import Annotated, Literal

from scanseg.cli.console import format_score, print_line, show_table
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import COMMON, Device, OutputFolder
from scanseg.messages import format_duration
from scanseg.progress_display import show_progress


def demo(
    *,
    recipe: Annotated[Literal["xlstm-unet", "msvm-unet"], COMMON] = "xlstm-unet",
    output: OutputFolder = Path("demo-output"),
    device: Device = "cpu",
) -> None:
    """Train a small network on a real brain and segment unseen slabs.

    Args:
        recipe: Recipe of the training.
        output: Folder of the label maps, the picture and the model.
    """
    from scanseg.demo import run
    from scanseg.errors import InterruptionError

    with show_progress() as progress:
        try:
            result = run(recipe=recipe, output=output, device=device, progress=progress)
        except InterruptionError as error:
            raise Interrupt(error.signal_number, "stopped. Run the same command to start again") from error
    show_table(
        ("Dice on unseen slabs", *result.network_dice),
        [
            (recipe, *map(format_score, result.network_dice.values())),
            ("two best thresholds", *map(format_score, result.threshold_dice.values())),
        ],
    )
    print_line(f"label maps: {result.label_maps}")
    print_line(f"picture: {result.picture}")
    print_line(f"time: {format_duration(result.seconds)}")
