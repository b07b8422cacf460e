"""Pictures and reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.errors import UsageError
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext
from scanseg.specs import InstanceSource, Report

if TYPE_CHECKING:
    import numpy as np

    from scanseg.figures import Style
    from scanseg.imaging import Image
    from scanseg.reports import Layout, Plane
    from scanseg.specs import CalibrationRecord


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
        labels: Values of labels by name: a mapping, a text such as `liver=1,spleen=2`, or a file. `None`: the names in
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


def calibrate(
    model: AnyPath,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: ProgressChoice = True,
) -> "CalibrationRecord":
    """Fit the probabilities of a model to its validation cases.

    The temperatures are stored in the model.

    Later predictions divide the logits by them for probabilities and uncertainty. Label maps do not change.

    Args:
        model: Model folder, or the folder of a cross-validation of one recipe.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        overwrite: Replace an earlier calibration.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Temperatures, and the expected calibration error before and after.

    Raises:
        InputError: The folder is no model, it has no validation scores, or its preprocessed cases are missing.
        UsageError: A calibration exists, or the model averages several recipes.

    Example:
        >>> import scanseg
        >>> record = scanseg.calibrate("CALIBRATED", device="cpu")
        >>> record.outputs, len(record.temperatures)
        (('background', 'disk'), 2)
    """
    from scanseg.reports import calibrate as fit

    with display(progress) as shown:
        return fit(Path(model), overwrite=overwrite, context=RunContext(device=device, progress=shown))


def report(
    target: AnyPath,
    output: AnyPath,
    *,
    references: AnyPath | None = None,
    images: AnyPath | None = None,
    scores: Report | None = None,
    instances: InstanceSource | None = None,
    iou: float = 0.5,
    border: int = 2,
    device: str = "auto",
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> Path:
    """Write a report as one HTML file that needs no network.

    Args:
        target: A model folder, the folder of a cross-validation, of a comparison or of a reproduction, or a folder of
            predictions.
        output: HTML file to write. An existing file is replaced.
        references: Folder of the references of predictions. `None`: unusual predictions are found without them.
        images: Folder of the images of predictions. `None`: the files in `prediction.json`.
        scores: Report of `evaluate` of these predictions. `None`: they are scored.
        instances: Score instances of predictions: `numbers`, `components`, `grown` or `separated`, as for
            `evaluate_instances`. The references are instance maps. `None`: label maps are scored.
        iou: Least intersection over union of a matched pair of instances.
        border: Instances within this many pixels of the ends of y and x are left out.
        device: Device for validation cases of a model whose label maps were not kept. At most three are predicted.
        num_workers: Processes that read cases. `None`: one per core, at most 16.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        The output.

    Raises:
        InputError: The folder is none of these, or a file cannot be read.
        UsageError: An argument does not fit the folder, or jinja2 or matplotlib is missing.

    Example:
        >>> import scanseg
        >>> scanseg.report("predictions", "report.html", references="REFERENCES").name
        'report.html'
    """
    from scanseg.papers import is_reproduction, write_reproduction_report
    from scanseg.reports import write_report

    folder, path = Path(target), Path(output)
    if is_reproduction(folder):
        if references is not None or images is not None or instances is not None:
            raise UsageError(
                f"{folder}: references, images and instances are for predictions, got a reproduction. Leave them out."
            )
        write_reproduction_report(folder, path)
        return path
    with display(progress) as shown:
        write_report(
            folder,
            path,
            references=None if references is None else Path(references),
            images=None if images is None else Path(images),
            scores=scores,
            instances=instances,
            iou=iou,
            border=border,
            context=RunContext(device=device, num_workers=num_workers, progress=shown),
        )
    return path


def _as_path(label_map: "AnyPath | np.ndarray | None") -> "Path | np.ndarray | None":
    """Return a path, or the values of a label map."""
    from numpy import ndarray

    return label_map if label_map is None or isinstance(label_map, ndarray) else Path(label_map)
