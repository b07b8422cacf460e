"""A small case of noise that loads the libraries of images.

They are imported when a file is read or written. Without this, each process spends some tenths of a second of its
first case on imports.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from scanseg.dataset import RawCase
from scanseg.imaging import DECODERS, Image, write_image, write_label_map
from scanseg.inference.case_files import CaseOptions, CaseToPredict, describe_images, segment_case, write_case
from scanseg.inference.outputs import WRITTEN_AS, CaseOutputs
from scanseg.inference.prediction import Prediction
from scanseg.inference.segmenter import Segmenter
from scanseg.progress import ignore_progress
from scanseg.specs import Plan, PredictedCase

_DEPTH, _SIZE = 8, 10
"""Voxels of the case along z, and along y and x. They fit into one window."""
_SPACING_FACTOR = 1.5
"""Spacing of the case along y and x as a multiple of the plan's, so that slices are resampled."""


def predict_small_case(predictor: Segmenter, *, segment: bool) -> PredictedCase:
    """Predict a small case of noise in a temporary folder.

    It has the file format of the training. For formats that are not written it has a similar one.

    Args:
        predictor: Predictor of the model.
        segment: Segment the case. False: only read, preprocess and write it.

    Returns:
        The entry of the case. Its files no longer exist.

    Raises:
        OSError: Temporary files cannot be written.
        ScansegError: The case cannot be read.
    """
    plan = predictor.plan
    options = CaseOptions(mirror=None, uncertainty=False, codes=None, model_digest="unknown")
    with TemporaryDirectory(prefix="scanseg-") as folder:
        images = _write_images(Path(folder), plan)
        ending = images[0].name.partition(".")[2]
        label_map = Path(folder) / f"label_map.{ending}"
        outputs = CaseOutputs(RawCase("small", images, None), label_map, None, None, None, None)
        case = CaseToPredict(outputs, describe_images(outputs.case))
        prepared, begin = predictor.prepare(images), time.monotonic()
        shape = prepared.image.shape
        outcome = (
            segment_case(predictor, case, prepared, options, progress=ignore_progress)
            if segment
            else Prediction(np.zeros(shape, dtype=np.uint8), None, None, None, prepared.image)
        )
        return write_case(predictor, case, outcome, options, begin=begin)


def _write_images(folder: Path, plan: Plan) -> tuple[Path, ...]:
    """Write one file for all colours, or one for each channel."""
    dataset, num_axes = plan.dataset, plan.num_axes
    depth = 1 if len(plan.sampling.patch_size) == 2 else _DEPTH
    shape = (depth, _SIZE, _SIZE)[-num_axes:]
    noise = np.random.default_rng(0).integers(0, 256, (dataset.num_channels, *shape), dtype=np.uint8)
    image = Image(noise, _spacing(plan), (0.0,) * num_axes, tuple(np.eye(num_axes).ravel().tolist()))
    if dataset.has_colour_pictures and num_axes == 2:
        write_image(folder / "image.png", image)
        return (folder / "image.png",)
    ending = WRITTEN_AS.get(dataset.file_ending, dataset.file_ending)
    if ending not in DECODERS:
        ending = ".nii.gz"
    paths = tuple(folder / f"image_{number}{ending}" for number in range(dataset.num_channels))
    for path, channel in zip(paths, noise, strict=True):
        write_label_map(path, channel, like=image)
    return paths


def _spacing(plan: Plan) -> tuple[float, ...]:
    """Return a spacing (z, y, x) other than the plan's."""
    z, y, x = plan.preprocessing.spacing or (1.0, 1.0, 1.0)
    return (z or 1.0, _SPACING_FACTOR * y, _SPACING_FACTOR * x)[-plan.num_axes :]
