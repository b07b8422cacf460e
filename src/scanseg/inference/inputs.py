"""From what a caller has, a file, an array, an image, to the image that a model expects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from scanseg.errors import InputError, UsageError
from scanseg.imaging import Image, read_image
from scanseg.messages import counted
from scanseg.specs import Plan

Source = str | Path | Sequence[Path] | np.ndarray | Image

_DOUBTFUL = 2.0
"""Factor beyond the spacings of the training's data set at which an image's is doubted."""


def open_source(source: Source, plan: Plan, *, spacing: Sequence[float] | None = None) -> Image:
    """Return the image of a source; see `Predictor.predict`.

    Args:
        source: A file, its files, an image or an array.
        plan: Of the model.
        spacing: Of an array.

    Raises:
        InputError: The image cannot be read, or is not what the plan expects.
        UsageError: The arguments do not go together.
    """
    if isinstance(source, str):
        source = Path(source)
    if isinstance(source, np.ndarray):
        image = _image_of_array(source, spacing, plan)
    elif spacing is not None:
        raise UsageError("spacing is for arrays; files and images have their own")
    elif isinstance(source, Path) and source.is_dir():
        raise UsageError(f"{source} is a folder; predict_folder segments all of its cases")
    else:
        image = source if isinstance(source, Image) else read_image(source)
    _check_axes(image, source, plan)
    return image


def _check_axes(image: Image, source: Source, plan: Plan) -> None:
    """Refuse an image of other axes than the model learnt; single slices are right for a 2D network."""
    if image.num_axes == plan.num_axes:
        return
    if image.num_axes == 2 and len(plan.sampling.patch_size) == 2:
        return
    raise InputError(
        f"{describe(source)}: has {image.num_axes} spatial axes, shape {image.shape}; the model was trained on "
        f"images of {plan.num_axes}. Give it such images."
    )


def doubt_spacing(image: Image, plan: Plan) -> str | None:
    """Say that an image's spacing is beyond half of the smallest or twice the largest that the plan was made for.

    A header that was lost makes voxels of 1 mm of any others, and a network then sees everything at a wrong size.
    """
    if plan.spacing_range is None or len(image.spacing) != len(plan.spacing_range[0]):
        return None
    limits = zip(image.spacing, *plan.spacing_range, strict=True)
    if all(lowest / _DOUBTFUL <= here <= highest * _DOUBTFUL for here, lowest, highest in limits):
        return None
    here, lowest, highest = (
        " x ".join(f"{size:.3g}" for size in each) for each in (image.spacing, *plan.spacing_range)
    )
    known = lowest if lowest == highest else f"{lowest} to {highest}"
    return f"its spacing (z, y, x) is {here} mm, that of the training's data set {known} mm; is its header right?"


def _image_of_array(array: Shaped[np.ndarray, "..."], spacing: Sequence[float] | None, plan: Plan) -> Image:
    """Give an array its place in space."""
    num_axes = plan.num_axes
    if spacing is None and plan.preprocessing.spacing is not None:
        raise UsageError(
            f"the plan resamples to {plan.preprocessing.spacing} mm, so an array needs its spacing: pass "
            f"spacing=, {num_axes} numbers in mm per voxel"
        )
    channels = array if array.ndim == num_axes + 1 else array[np.newaxis]
    faults = []
    if channels.ndim != num_axes + 1 or len(channels) != plan.dataset.num_channels:
        faults.append(
            f"the array has shape {array.shape}; the model expects {counted(plan.dataset.num_channels, 'channel')} "
            f"({', '.join(plan.dataset.channel_names)}) before {num_axes} spatial axes"
        )
    if array.size == 0:
        faults.append(f"the array has shape {array.shape}: no voxels")
    if array.dtype.kind not in "iufb":
        faults.append(f"the array holds {array.dtype}; intensities are integers or floats")
    elif not np.isfinite(array).all():
        faults.append("the array holds NaN or infinite values; replace them")
    try:
        sizes = (1.0,) * num_axes if spacing is None else tuple(float(size) for size in spacing)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != num_axes or not all(0 < size < np.inf for size in sizes):
        faults.append(f"spacing {sizes or spacing} must be {num_axes} positive numbers of mm")
    if faults:
        raise InputError("; ".join(faults))
    direction = tuple(float(value) for value in np.eye(num_axes).ravel())
    return Image(channels, spacing=sizes, origin=(0.0,) * num_axes, direction=direction)


def describe(source: Source) -> str:
    """Return a source in words, for messages."""
    if isinstance(source, Image | np.ndarray):
        return "the image"
    return str(source) if isinstance(source, str | Path) else ", ".join(str(path) for path in source)
