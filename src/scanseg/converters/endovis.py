"""EndoVis 2017: instruments in endoscopic videos, one mask per instrument.

Frames of 1920x1080 pixels hold a picture of 1280x1024 pixels within black borders. The borders are cropped.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.converters.sources import Found, Part, Sample, SourceCase, note_unused, visible_files
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
"""Videos with test frames only. In other videos the frames from 225 are test frames."""
_FULL_SIZE = (1080, 1920)
_PICTURE = (slice(28, 28 + 1024), slice(320, 320 + 1280))
_VIDEO = re.compile(r"instrument_dataset_(?P<video>\d+)")
_FRAME = re.compile(r"frame(?P<frame>\d{3})\.png")
_OTHER = "other"


def find_videos(source: Path) -> Found | None:
    """Find the frames and masks of videos.

    Frames are `instrument_dataset_N/left_frames/frameNNN.png`, up to two folders below the source.
    """
    videos = sorted(
        path
        for pattern in ("", "*/", "*/*/")
        for path in source.glob(f"{pattern}instrument_dataset_*")
        if path.is_dir() and _VIDEO.fullmatch(path.name) and (path / "left_frames").is_dir()
    )
    if not videos:
        return None
    found = [_frame(video, frame) for video in videos for frame in visible_files(video / "left_frames")]
    unlabelled = [video.name for video in videos if _is_unlabelled_test(video)]
    notes = [f"no masks, left out: {', '.join(unlabelled)}"] if unlabelled else []
    notes += [
        f"{video.name}: {note}"
        for video in videos
        for note in note_unused(video / "left_frames", lambda path: bool(_FRAME.fullmatch(path.name)))
    ]
    return Found(
        cases=tuple(entry for entry in found if isinstance(entry, SourceCase)),
        faults=tuple(entry for entry in found if isinstance(entry, str)),
        notes=tuple(notes),
    )


def _frame(video: Path, frame: Path) -> SourceCase | str | None:
    """Return the case of a frame, or the fault of its masks.

    `None`: the file is no frame, or belongs to a video without masks.
    """
    match, index = _VIDEO.fullmatch(video.name), _FRAME.fullmatch(frame.name)
    if match is None or index is None or _is_unlabelled_test(video):
        return None
    number = int(match["video"])
    name = f"video{number:02d}_frame{index['frame']}"
    part = _part(number, int(index["frame"]))
    typed = video / "gt" / "TypeSegmentation" / frame.name
    if typed.is_file():
        return SourceCase(name, part, partial(_read_typed, frame, typed))
    folders = sorted(path for path in (video / "ground_truth").glob("*") if path.is_dir())
    masks = [(_instrument(folder.name), folder / frame.name) for folder in folders]
    unknown = [folder.name for folder, (label, _) in zip(folders, masks, strict=True) if label is None]
    missing = [str(path.relative_to(video)) for _, path in masks if not path.is_file()]
    where = f"{video.name}, {frame.name}"
    if unknown:
        return f"{where}: expected masks of {', '.join(INSTRUMENTS)}, got unknown instruments {', '.join(unknown)}"
    if missing or not masks:
        return f"{where}: no mask {', '.join(missing) or 'in ground_truth or gt/TypeSegmentation'}"
    known = tuple((label, path) for label, path in masks if label is not None)
    return SourceCase(name, part, partial(_read_masks, frame, known))


def _part(video: int, frame: int) -> Part:
    """Return the published part of a frame."""
    return "test" if video in TEST_VIDEOS or frame >= FIRST_TEST_FRAME else "train"


def _is_unlabelled_test(video: Path) -> bool:
    """Return whether a video has test frames only, and no masks."""
    if (video / "ground_truth").is_dir() or (video / "gt").is_dir():
        return False
    number = int(video.name.rpartition("_")[2])
    frames = [_FRAME.fullmatch(path.name) for path in visible_files(video / "left_frames")]
    return all(_part(number, int(frame["frame"])) == "test" for frame in frames if frame)


def _instrument(folder: str) -> int | None:
    """Return the label of a folder of masks. `None`: unknown.

    Folders have names such as `Left_Prograsp_Forceps_labels`.
    """
    words = folder.lower().replace("-", "_").replace("_", " ")
    for name, label in INSTRUMENTS.items():
        if name in words:
            return label
    return INSTRUMENTS["ultrasound probe"] if _OTHER in words.split() else None


def _read_masks(frame: Path, masks: Sequence[tuple[int, Path]]) -> Sample:
    """Read a frame and the masks of its instruments.

    The highest label wins if masks overlap.
    """
    image = read_image(frame)
    labels = np.zeros((1, *image.shape), np.uint8)
    for label, path in sorted(masks):
        mask = read_label_map(path)
        if mask.shape != image.shape:
            raise InputError(f"{path}: expected shape {image.shape} of the frame, got {mask.shape}.")
        labels[mask.array > 0] = label
    return _crop(image, replace(image, array=labels))


def _read_typed(frame: Path, label_map: Path) -> Sample:
    """Read a frame and its label map with all instruments."""
    return _crop(read_image(frame), read_label_map(label_map))


def _crop(image: Image, label_map: Image) -> Sample:
    """Return a case whose full frames are cropped to the picture."""
    if image.shape != _FULL_SIZE or label_map.shape != _FULL_SIZE:
        return Sample(image, label_map)
    return Sample(_crop_image(image), _crop_image(label_map))


def _crop_image(image: Image) -> Image:
    return replace(image, array=np.ascontiguousarray(image.array[(slice(None), *_PICTURE)]))
