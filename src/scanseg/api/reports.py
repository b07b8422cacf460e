"""Pictures and reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath

if TYPE_CHECKING:
    import numpy as np

    from scanseg.figures import Style
    from scanseg.imaging import Image
    from scanseg.reports import Layout, Plane


def show(
    image: "AnyPath | Sequence[AnyPath] | Image",
    output: AnyPath,
    *,
    label_map: "AnyPath | np.ndarray | None" = None,
    reference: "AnyPath | np.ndarray | None" = None,
    layout: "Layout" = "planes",
    plane: "Plane" = "axial",
    at: Sequence[int] | None = None,
    num_slices: int = 20,
    style: "Style" = "both",
    window: tuple[float, float] | None = None,
    channel: int | None = None,
    labels: "AnyPath | Mapping[str, object] | None" = None,
) -> str:
    """Draw an image with its label map.

    Volumes are shown in the orientation of radiology: the patient's right is on the left.

    Args:
        image: File of the image, a DICOM series, one file per channel, or the image itself.
        output: File to write: a picture (`.png`, `.jpg`, `.pdf`, `.svg`), or a film through the slices of a volume
            (`.gif`, or `.mp4` with imageio and PyAV).
        label_map: File of the label map, or its values. `None`: only the image.
        reference: A second label map, drawn as white outlines.
        layout: `planes`, or `montage` for slices side by side.
        plane: Plane of a montage or a film: `axial`, `coronal` or `sagittal`.
        at: Slices of the three planes: along z from the feet, y from the front, x from the patient's right. `None`:
            the slices with the largest part of all labels.
        num_slices: Slices of a montage.
        style: `fill`, `contour` or `both`.
        window: Intensities that are shown black and white. `None`: the percentiles 0.5 and 99.5.
        channel: Number of the channel, from 0. `None`: the colours of an RGB picture, else channel 0.
        labels: Values of labels by name: a mapping, a text such as `liver=1,spleen=2`, or a file. `None`: those of
            `dataset.json` beside the label map.

    Returns:
        Description of the picture.

    Raises:
        InputError: A file cannot be read, a label map has another grid, or a package for MP4 is missing.
        UsageError: The ending is unknown, or an argument does not fit the image.

    Example:
        >>> import scanseg
        >>> scanseg.show("image.png", "shown.png")
        'picture'
    """
    from scanseg.figures import Look
    from scanseg.imaging import Image
    from scanseg.reports import show as draw

    files: Path | list[Path] | Image
    if isinstance(image, Image):
        files = image
    elif isinstance(image, Sequence) and not isinstance(image, str):
        files = [Path(each) for each in image]
    else:
        files = Path(image)
    return draw(
        files,
        _as_path(label_map),
        Path(output),
        reference=_as_path(reference),
        layout=layout,
        plane=plane,
        at=at,
        num_slices=num_slices,
        look=Look(style),
        window=window,
        channel=channel,
        labels=labels if labels is None or isinstance(labels, str | Mapping) else Path(labels),
    )


def _as_path(label_map: "AnyPath | np.ndarray | None") -> "Path | np.ndarray | None":
    """Return a path, or the values of a label map."""
    from numpy import ndarray

    return label_map if label_map is None or isinstance(label_map, ndarray) else Path(label_map)
