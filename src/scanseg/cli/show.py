"""`scanseg show`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    OutputFile,
    Overwrite,
    read_pair,
    read_slices,
    require_new_file,
)


def show(
    image: Path,
    label_map: Path | None = None,
    /,
    *,
    output: OutputFile,
    overwrite: Overwrite = False,
    reference: Annotated[Path | None, COMMON] = None,
    layout: Annotated[Literal["planes", "montage"], COMMON] = "planes",
    plane: Annotated[Literal["axial", "coronal", "sagittal"], COMMON] = "axial",
    style: Annotated[Literal["fill", "contour", "both"], COMMON] = "both",
    labels: Annotated[str | None, COMMON] = None,
    window: Annotated[str | None, COMMON, Parameter(allow_leading_hyphen=True)] = None,
    at: Annotated[str | None, ADVANCED] = None,
    num_slices: Annotated[int, ADVANCED, Parameter(name="--slices")] = 20,
    channel: Annotated[int | None, ADVANCED] = None,
) -> None:
    """Draw an image with its label map as picture or film.

    Volumes are shown in the orientation of radiology: the patient's right is on the left.

    Args:
        image: Image of two or three axes, or the folder or zip file of a DICOM series.
        label_map: Label map on the grid of the image. Without it, only the image is drawn.
        output: File to write. `.png`, `.jpg`, `.pdf` and `.svg` are pictures. `.gif` and `.mp4` are films through the
            slices of a volume. MP4 needs imageio and PyAV.
        reference: A second label map, drawn as white outlines. Defaults to none.
        layout: `planes`: the slices with the largest part of all labels in three planes. `montage`: slices side by
            side.
        plane: Plane of a montage or a film.
        style: Labels as areas, as outlines, or as both.
        labels: Names of the labels: `liver=1,spleen=2` or a file. Defaults to the names in `dataset.json`, beside the
            label map or above it.
        window: Intensities `LOW,HIGH` that are black and white, such as `-160,240`. Defaults to the percentiles 0.5 and
            99.5 of the image.
        at: Slices `Z,Y,X` of the three planes, counted from the feet, the front and the patient's right. Defaults to
            the slices with the largest part of all labels.
        num_slices: Number of slices of a montage.
        channel: Channel of an image with several, from 0. Defaults to the colours of an RGB picture, otherwise to 0.
    """
    require_new_file(output, overwrite=overwrite)
    slices, limits = read_slices(at, "--at"), read_pair(window, "--window")

    from scanseg import api

    drawn = api.show(
        image,
        output,
        label_map=label_map,
        reference=reference,
        layout=layout,
        plane=plane,
        at=slices,
        num_slices=num_slices,
        style=style,
        window=limits,
        channel=channel,
        labels=labels,
    )
    print_line(f"{output}: {drawn}")
