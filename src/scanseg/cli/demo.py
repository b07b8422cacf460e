"""`scanseg demo`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import format_duration, format_score, say, show_table
from scanseg.cli.options import Device
from scanseg.cli.progress import show_progress


def demo(
    *,
    recipe: Literal["xlstm-unet", "msvm-unet"] = "xlstm-unet",
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("demo-output"),
    device: Device = "cpu",
) -> None:
    """Train a small network on two slabs of a real brain and segment two that it has not seen.

    Args:
        recipe: The network and its way of training.
        output: Folder for the label map, the picture and the model.
    """
    from scanseg.demo import run

    with show_progress() as progress:
        result = run(recipe=recipe, output=output, device=device, progress=progress)
    show_table(
        ("Dice on unseen slabs", *result.network_dice),
        [
            (recipe, *map(format_score, result.network_dice.values())),
            ("two best thresholds", *map(format_score, result.threshold_dice.values())),
        ],
    )
    say(f"label maps: {result.label_maps}")
    say(f"picture: {result.picture}")
    say(f"took {format_duration(result.seconds)}")
