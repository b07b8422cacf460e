"""BraTS 2023 (adult glioma) and 2021: MRI with tumour regions."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.converters.labels import renumber
from scanseg.converters.sources import Found, Part, Sample, SourceCase, note_unused
from scanseg.imaging import read_image, read_label_map

REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (1, 3), "enhancing tumour": (3,)}
REGION_ORDER = (2, 1, 3)
CHANNELS = ("T1", "T1c", "T2", "FLAIR")
SPLIT_SEED = 0
_PARTS: tuple[tuple[Part, float], ...] = (("train", 0.7), ("validation", 0.1), ("test", 0.2))
_FORMS = {
    "2023": (re.compile(r"BraTS-\w+-\d{5}-\d{3}"), "-", ("t1n", "t1c", "t2w", "t2f"), {1: 1, 2: 2, 3: 3}),
    "2021": (re.compile(r"BraTS2021_\d{5}"), "_", ("t1", "t1ce", "t2", "flair"), {1: 1, 2: 2, 4: 3}),
}
"""File names and labels by year.

They are: pattern of case names, separator before the channel, channels in the order of `CHANNELS`, new value of each
label.
"""


def find_brats(source: Path, *, year: str) -> Found | None:
    """Find folders of cases in the source or one folder below.

    The folder of a case holds a file for every channel and the label map `seg`.

    Args:
        source: Folder of the data set.
        year: `2023` or `2021`. Their file names and labels differ.

    Returns:
        The cases. `None`: the source has no such folders.
    """
    pattern, dash, channels, values = _FORMS[year]
    folders = {
        path.name: path
        for path in (*source.glob("*"), *source.glob("*/*"))
        if path.is_dir() and pattern.fullmatch(path.name)
    }
    if not folders:
        return None
    parts = _draw_parts(sorted(folders))
    cases, faults = [], []
    for name, folder in sorted(folders.items()):
        stems = [f"{name}{dash}{channel}" for channel in (*channels, "seg")]
        files = [next(iter(sorted(folder.glob(f"{stem}.nii*"))), None) for stem in stems]
        missing = [f"{stem}.nii.gz" for stem, path in zip(stems, files, strict=True) if path is None]
        if missing:
            faults.append(f"{name}: missing {', '.join(missing)}")
            continue
        *images, label_map = (path for path in files if path is not None)
        cases.append(SourceCase(name, parts[name], partial(_read, tuple(images), label_map, values)))
    known, parents = set(folders.values()), {folder.parent for folder in folders.values()}
    notes = (
        note
        for parent in sorted(parents)
        for note in note_unused(parent, lambda path: path.is_file() or path in known | parents)
    )
    return Found(tuple(cases), tuple(faults), tuple(notes))


def _draw_parts(names: list[str]) -> dict[str, Part]:
    """Draw the parts of all cases.

    Only the sizes of the parts are published.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    edges = np.rint(np.cumsum([fraction for _, fraction in _PARTS]) * len(names)).astype(int)
    place = np.searchsorted(edges, np.arange(len(names)), side="right")
    return {names[index]: _PARTS[part][0] for index, part in zip(order, place, strict=True)}


def _read(images: tuple[Path, ...], label_map: Path, values: dict[int, int]) -> Sample:
    return Sample(read_image(images), renumber(read_label_map(label_map), values, path=label_map))
