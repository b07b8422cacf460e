"""File names of images and label maps in folders of other layouts."""

import re
from collections.abc import Sequence
from pathlib import Path

from scanseg.imaging import DECODERS

IMAGE_FOLDERS = (
    "images",
    "image",
    "imgs",
    "img",
    "imagestr",
    "jpegimages",
    "scans",
    "volumes",
    "inputs",
    "input",
)
"""Names of folders that hold images, in lower case."""
LABEL_FOLDERS = (
    *("labels", "label", "masks", "mask", "labelstr", "segmentations", "segmentation", "segs", "seg"),
    *("annotations", "annotation", "groundtruth", "ground_truth", "gt", "segmentationclass"),
)
"""Names of folders that hold label maps, in lower case."""
MASK_FOLDERS = ("segmentations", "masks", "labels", "structures", "organs", "rois")
"""Names of folders inside the folder of a case that hold one mask per structure, in lower case."""
LABEL_WORDS = (
    *("mask", "masks", "seg", "segmentation", "segmentations", "label", "labels", "labelmap", "lbl"),
    *("gt", "groundtruth", "ground_truth", "annotation", "annotations", "manual", "roi"),
)
"""Words at the ends of the names of label maps."""
IMAGE_WORDS = ("image", "images", "img", "im", "volume", "vol", "scan", "orig", "original", "raw")
"""Words at the ends of the names of images."""
MODALITIES = ("ct", "cta", "mr", "mri", "pet", "us", "flair", "t1", "t1c", "t1ce", "t1n", "t2", "t2f", "t2w")
"""Names of the image in the folder of a case, besides `IMAGE_WORDS`."""

_SEPARATOR = r"[_\-. ]+"
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def stem_of(path: Path) -> str:
    """Return the name of an image file without its ending.

    Args:
        path: File of a known ending.
    """
    ending = next(ending for ending in DECODERS if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def is_image_file(path: Path) -> bool:
    """Return whether a path is a visible file of a known ending.

    Args:
        path: File or folder.
    """
    is_visible = not path.name.startswith(".") and path.name.lower() not in DECODERS
    return is_visible and path.name.lower().endswith(tuple(DECODERS)) and path.is_file()


def without_words(stem: str, words: Sequence[str]) -> str:
    """Remove words from the beginning and the end of a name.

    Words are separated by `_`, `-`, `.` or a space. At the beginning, a number may follow without a separator.

    Args:
        stem: Name of a file without its ending.
        words: Words in lower case.

    Returns:
        The rest. It is empty if the name is one of the words.

    Examples:
        >>> without_words("a_12-label", LABEL_WORDS), without_words("mask0007", LABEL_WORDS)
        ('a_12', '0007')
    """
    one = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    if re.fullmatch(one, stem, re.IGNORECASE):
        return ""
    stem = re.sub(rf"{_SEPARATOR}(?:{one})$", "", stem, flags=re.IGNORECASE)
    return re.sub(rf"^(?:{one})(?:{_SEPARATOR}|(?=\d))", "", stem, flags=re.IGNORECASE)


def split_number(stem: str) -> tuple[str, int | None]:
    """Split nnU-Net's four digits from a name.

    Args:
        stem: Name of a file without its ending.

    Returns:
        The name of the case and the number of the channel, or the whole name and `None`.
    """
    match = _NUMBERED.fullmatch(stem)
    return (stem, None) if match is None else (match["case"], int(match["channel"]))


def split_named_channel(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    """Split the name of a channel from the end of a name.

    Args:
        stem: Name of a file without its ending.
        channels: Names of the channels in order.

    Returns:
        The name of the case, empty if the name is that of the channel, and the place of the channel. `None`: the name
        ends in no channel.
    """
    for place, channel in enumerate(channels):
        if stem.lower() == channel.lower():
            return "", place
        match = re.fullmatch(rf"(.+?){_SEPARATOR}{re.escape(channel)}", stem, re.IGNORECASE)
        if match is not None:
            return match[1], place
    return None


def find_channel_names(case: str, stems: Sequence[str]) -> tuple[str, ...]:
    """Return the endings of the files of a case.

    Args:
        case: Name of the case.
        stems: Names of files without their endings.

    Returns:
        The parts after the case and a separator, sorted, such as `flair` and `t1` for `case_t1` and `case_flair`.
    """
    ends = (re.fullmatch(rf"{re.escape(case)}{_SEPARATOR}(.+)", stem) for stem in stems)
    return tuple(sorted(end[1] for end in ends if end is not None))
