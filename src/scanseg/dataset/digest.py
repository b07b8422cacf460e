"""Checksum of a raw data set, to recognize that it has changed."""

import hashlib
import json

from scanseg.dataset.description import DESCRIPTION_FILE
from scanseg.dataset.raw import RawDataset
from scanseg.documents import read_json


def compute_dataset_digest(raw: RawDataset) -> str:
    """Return a checksum of names, sizes and description of a data set.

    The content and the dates of images are not read, so it takes milliseconds, and copies have the same checksum. The
    files of the voxels of headers and the spacings of TIFF files count too.

    Args:
        raw: The data set.

    Returns:
        16 hexadecimal digits.
    """
    content = json.dumps(read_json(raw.path / DESCRIPTION_FILE), sort_keys=True)
    lines = [content]
    for case in sorted(raw.cases, key=lambda case: case.name):
        sizes = [[path.name, path.stat().st_size] for path in case.files if path.is_file()]
        lines.append(json.dumps([case.name, sizes]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
