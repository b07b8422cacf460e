"""EndoVis 2017: instruments in endoscopic videos, one mask for each instrument and frame.

Frames of 1920x1080 pixels hold a picture of 1280x1024 within black borders, which is cut out.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.datasets.sources import Found, Part, Sample, SourceCase, visible_files
from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, read_label_map

INSTRUMENTS = {
    "bipolar forceps": 1,
    "prograsp forceps": 2,
    "large needle driver": 3,
    "vessel sealer": 4,
    "grasping retractor": 5,
    "monopolar curved scissors": 6,
    "ultrasound probe": 7,
}
FIRST_TEST_FRAME = 225
TEST_VIDEOS = (9, 10)
"""Videos of which every frame is a test frame; of the others the frames from 225 on are."""
_FULL_SIZE = (1080, 1920)
_PICTURE = (slice(28, 28 + 1024), slice(320, 320 + 1280))
_VIDEO = re.compile(r"instrument_dataset_(?P<video>\d+)")
_FRAME = re.compile(r"frame(?P<frame>\d{3})\.png")
_OTHER = "other"


def find_videos(source: Path) -> Found | None:
    """Find `instrument_dataset_N/left_frames/frameNNN.png` up to two folders below the source, with their masks."""
    videos = sorted(
        path
        for pattern in ("", "*/", "*/*/")
        for path in source.glob(f"{pattern}instrument_dataset_*")
        if path.is_dir() and _VIDEO.fullmatch(path.name) and (path / "left_frames").is_dir()
    )
    if not videos:
        return None
    cases: list[SourceCase] = []
    faults: list[str] = []
    for video in videos:
        for frame in visible_files(video / "left_frames"):
            if match := _FRAME.fullmatch(frame.name):
                _add_frame(video, frame, int(match["frame"]), cases, faults)
    return Found(tuple(cases), tuple(faults))


def _add_frame(video: Path, frame: Path, index: int, cases: list[SourceCase], faults: list[str]) -> None:
    """Add a frame with its masks to the cases, or what is missing to the faults."""
    match = _VIDEO.fullmatch(video.name)
    number = int(match["video"]) if match else 0
    name = f"video{number:02d}_frame{index:03d}"
    typed = video / "gt" / "TypeSegmentation" / frame.name
    part: Part = "test" if number in TEST_VIDEOS or index >= FIRST_TEST_FRAME else "train"
    if typed.is_file():
        cases.append(SourceCase(name, part, partial(_read_typed, frame, typed)))
        return
    folders = sorted(path for path in (video / "ground_truth").glob("*") if path.is_dir())
    masks = [(_instrument(folder.name), folder / frame.name) for folder in folders]
    unknown = [folder.name for folder, (label, _) in zip(folders, masks, strict=True) if label is None]
    missing = [str(path.relative_to(video)) for _, path in masks if not path.is_file()]
    if not masks or unknown or missing:
        what = (
            f"no mask {', '.join(missing)}" if missing else "no masks in ground_truth or gt/TypeSegmentation"
        )
        what = f"masks of unknown instruments: {', '.join(unknown)}" if unknown else what
        faults.append(f"{video.name}, {frame.name}: {what}")
        return
    known = tuple((label, path) for label, path in masks if label is not None)
    cases.append(SourceCase(name, part, partial(_read_masks, frame, known)))


def _instrument(folder: str) -> int | None:
    """Return the label of a folder of masks such as `Left_Prograsp_Forceps_labels`; None: not known."""
    words = folder.lower().replace("-", "_").replace("_", " ")
    for name, label in INSTRUMENTS.items():
        if name in words:
            return label
    return INSTRUMENTS["ultrasound probe"] if _OTHER in words.split() else None


def _read_masks(frame: Path, masks: Sequence[tuple[int, Path]]) -> Sample:
    """Read a frame and the masks of its instruments; where masks overlap, the higher label stands."""
    image = read_image(frame)
    labels = np.zeros((1, *image.shape), np.uint8)
    for label, path in sorted(masks):
        mask = read_label_map(path)
        if mask.shape != image.shape:
            raise InputError(f"{path}: shape {mask.shape}, where the frame has {image.shape}.")
        labels[mask.array > 0] = label
    return _cut(Sample(image, replace(image, array=labels)))


def _read_typed(frame: Path, label_map: Path) -> Sample:
    """Read a frame whose instruments have their label in one file."""
    return _cut(Sample(read_image(frame), read_label_map(label_map)))


def _cut(sample: Sample) -> Sample:
    """Cut the picture out of full frames."""
    if sample.image.shape != _FULL_SIZE or sample.label_map.shape != _FULL_SIZE:
        return sample
    return Sample(_cut_image(sample.image), _cut_image(sample.label_map))


def _cut_image(image: Image) -> Image:
    return replace(image, array=np.ascontiguousarray(image.array[(slice(None), *_PICTURE)]))
