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
    recipe: Annotated[Literal["xlstm-unet", "msvm-unet"] | None, COMMON] = None,
    output: OutputFolder = Path("demo-output"),
    device: Device = "cpu",
) -> None:
    """Train small networks on a real brain and segment unseen slabs.

    Args:
        recipe: Recipe of the training. Defaults to both, at the same time if the CPU has two cores.
        output: Folder of the label maps, the picture and the models.
    """
    from scanseg.demo import run
    from scanseg.errors import InterruptionError

    with show_progress() as progress:
        try:
            result = run(recipe=recipe, output=output, device=device, progress=progress)
        except InterruptionError as error:
            raise Interrupt(error.signal_number, "stopped. Run the same command to start again") from error
    show_table(
        ("Dice on unseen slabs", *result.threshold_dice),
        [
            *((name, *map(format_score, dice.values())) for name, dice in result.network_dice.items()),
            ("best thresholds", *map(format_score, result.threshold_dice.values())),
        ],
    )
    print_line(f"label maps: {result.label_maps}")
    print_line(f"picture: {result.picture}")
    print_line(f"time: {format_duration(result.seconds)}")
