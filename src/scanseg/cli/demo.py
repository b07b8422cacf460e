"""`scanseg demo`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.progress import show_progress


def demo(
    *,
    recipe: Literal["xlstm-unet", "msvm-unet"] = "xlstm-unet",
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("demo-output"),
) -> None:
    """Train a small network on two slabs of a real brain and segment two that it has not seen.

    Args:
        recipe: The network and its way of training.
        output: Folder for the label map, the picture and the model.
    """
    from scanseg import demo as room

    with show_progress() as listen:
        room.run(recipe=recipe, output=output, listen=listen)
