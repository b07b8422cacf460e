"""Segmentation of a job, and its result files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scanseg.errors import InputError, ScansegError
from scanseg.imaging import (
    DECODERS,
    MEDICAL_DECODERS,
    Image,
    SegmentationSource,
    decoder_of,
    file_ending,
    make_segments,
    read_geometry,
    read_label_map,
    write_label_map,
    write_segmentation,
)
from scanseg.inference import Predictor, write_map
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.serving.jobs import Job
from scanseg.serving.limits import Limits
from scanseg.serving.uploads import check_sizes

LABEL_MAP_FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png")
"""Formats in which a server writes label maps: endings of files."""


def segment_job(
    job: Job, progress: ProgressCallback, *, models: Mapping[str, Predictor], limits: Limits
) -> None:
    """Segment the image of a job, and write its results.

    Args:
        job: The job. Its results, volumes and warnings are set.
        progress: Called with each progress update. An exception of it ends the work.
        models: The models by name.
        limits: Most voxels.

    Raises:
        ScansegError: The image cannot be used, or memory ran out. The message names no folder.
    """
    predictor = models[job.model]
    try:
        progress(ProgressUpdate("reading", 0, 1))
        check_sizes(job.files, limits)
        prepared = predictor.prepare(job.files)
        job.warnings = [_without_folder(warning, job) for warning in prepared.warnings]
        progress(ProgressUpdate("predicting", 0, 1))
        prediction = predictor.predict_prepared(
            prepared, mirror=job.mirror, uncertainty=job.uncertainty, progress=progress
        )
        progress(ProgressUpdate("writing", 0, 1))
        is_picture = _is_picture(prediction.image, job.files[0])
        ending = ".png" if is_picture else ".nii.gz"
        results = {"label-map": job.folder / f"label-map{ending}"}
        write_label_map(results["label-map"], prediction.label_map, like=prediction.image)
        for name, values in (("entropy", prediction.entropy), ("disagreement", prediction.disagreement)):
            if values is not None:
                results[name] = job.folder / f"{name}{ending}"
                write_map(results[name], values, like=prediction.image)
    except (InputError, ScansegError) as error:
        raise ScansegError(_without_folder(str(error), job)) from error
    job.volumes = measure_volumes(
        prediction.label_map,
        labels=predictor.plan.dataset.foreground,
        spacing=prediction.image.spacing,
        is_physical=not is_picture,
    )
    job.results = results
    progress(ProgressUpdate("writing", 1, 1))


def measure_volumes(
    label_map: UInt8[np.ndarray, "*spatial"],
    *,
    labels: Mapping[str, tuple[int, ...]],
    spacing: tuple[float, ...],
    is_physical: bool,
) -> dict[str, Any]:
    """Measure the volume or area of each label.

    Args:
        label_map: Label map.
        labels: Values of each label or region, by name.
        spacing: Millimetres per voxel.
        is_physical: The spacing is known. False: only voxels are counted.

    Returns:
        JSON values by label: `voxels`, and `ml` (3D) or `mm2` (2D) if the spacing is known.
    """
    counts = np.bincount(label_map.ravel(), minlength=256)
    size_mm = float(np.prod(spacing))
    measured = dict[str, Any]()
    for name, values in labels.items():
        voxels = int(counts[sorted(set(values))].sum())
        measured[name] = {"voxels": voxels}
        if is_physical and label_map.ndim == 3:
            measured[name]["ml"] = round(voxels * size_mm / 1000, 6)
        elif is_physical:
            measured[name]["mm2"] = round(voxels * size_mm, 6)
    return measured


def make_result(job: Job, name: str, *, format: str | None, predictor: Predictor) -> Path:
    """Return the file of a result, made on demand.

    Args:
        job: Job in the state `done`.
        name: `label-map`, `dicom-seg`, `entropy` or `disagreement`.
        format: Ending of the label map, of `LABEL_MAP_FORMATS`. `None`: `png` for pictures, else `nii.gz`.
        predictor: Model of the job.

    Raises:
        InputError: The job has no such result.
        ScansegError: The file cannot be written. The message names no folder.
    """
    try:
        with job.lock:
            if name == "dicom-seg":
                return _make_segmentation(job, predictor)
            if name in job.results and (format is None or job.results[name].name.endswith(f".{format}")):
                return job.results[name]
            if name == "label-map":
                return _convert(job, str(format))
    except ScansegError as error:
        raise InputError(_without_folder(str(error), job)) from error
    raise InputError(f"{name}: expected a job with uncertainty, got one without. Send uncertainty=true.")


def _convert(job: Job, format: str) -> Path:
    """Write the label map in another format."""
    path = job.folder / f"label-map-converted.{format}"
    if not path.exists():
        source = read_label_map(job.results["label-map"])
        if DECODERS[file_ending(path)] == "pillow" and source.num_axes == 3:
            raise InputError("format: expected a picture for png, got a volume. Choose nii.gz.")
        is_flat = source.num_axes == 2 and format.startswith("nii")
        like = replace(source, header=None) if is_flat else source
        write_label_map(path, source.array[0], like=like)
    return path


def _make_segmentation(job: Job, predictor: Predictor) -> Path:
    """Write the DICOM Segmentation of a job."""
    if job.files[0].suffix != ".zip":
        raise InputError("dicom-seg: expected an upload of a DICOM series, got another image. Use label-map.")
    path = job.folder / "segmentation.dcm"
    if not path.exists():
        like = read_geometry(job.files[:1])
        assert like is not None
        write_segmentation(
            path,
            read_label_map(job.results["label-map"]).array[0],
            like=like,
            segments=make_segments(predictor.plan.dataset.foreground, None),
            source=SegmentationSource(job.model, predictor.compute_digest()),
        )
    return path


def _is_picture(image: Image, path: Path) -> bool:
    """Return whether an image is a picture without a position in space."""
    return image.num_axes == 2 and decoder_of(path) not in MEDICAL_DECODERS


def _without_folder(text: str, job: Job) -> str:
    """Return a message without the folder of the server."""
    return text.replace(f"{job.folder}/", "").replace(str(job.folder), "the upload")
