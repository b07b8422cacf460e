"""Abdominal organs: MRI of AMOS22 and CT of FLARE22.

xLSTM-UNet and U-Mamba use these data sets.
"""

import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

from scanseg.converters.labels import renumber
from scanseg.converters.pairing import read_pair
from scanseg.converters.sources import Found, Sample, SourceCase, first_folder, note_unused, visible_files
from scanseg.imaging import read_image, read_label_map

ORGANS = {
    "liver": 1,
    "right kidney": 2,
    "spleen": 3,
    "pancreas": 4,
    "aorta": 5,
    "IVC": 6,
    "right adrenal gland": 7,
    "left adrenal gland": 8,
    "gallbladder": 9,
    "esophagus": 10,
    "stomach": 11,
    "duodenum": 12,
    "left kidney": 13,
}
FIRST_MRI = 501
"""First case number of AMOS' MRI. Its CT has the numbers up to 500."""
_AMOS_VALUES = {
    1: 3,
    2: 2,
    3: 13,
    4: 9,
    5: 10,
    6: 1,
    7: 11,
    8: 5,
    9: 6,
    10: 4,
    11: 7,
    12: 8,
    13: 12,
    14: 0,
    15: 0,
}
"""New value of each of AMOS' 15 labels. Bladder and prostate or uterus become background."""
_AMOS = re.compile(r"amos_(?P<case>\d{4})\.nii\.gz")
_FLARE = re.compile(r"(?P<case>FLARE22_Tr_\d{4})_0000\.nii\.gz")


def find_amos(source: Path) -> Found | None:
    """Find the labelled MRI of AMOS22.

    Images are `imagesTr/amos_NNNN.nii.gz` and `imagesVa/amos_NNNN.nii.gz`. Label maps have the same names in
    `labelsTr` and `labelsVa`.
    """
    root = first_folder(
        source, (".", "amos22", "AMOS22"), ("imagesTr/amos_0001.nii.gz", "imagesVa", "imagesTr")
    )
    if root is None or not any(_AMOS.fullmatch(path.name) for path in visible_files(root / "imagesTr")):
        return None
    images = [
        (part, image, int(match["case"]))
        for part in ("Tr", "Va")
        for image in visible_files(root / f"images{part}")
        if (match := _AMOS.fullmatch(image.name))
    ]
    cases, faults, notes = [], [], []
    for part, image, number in images:
        label_map = root / f"labels{part}" / image.name
        if number < FIRST_MRI or not label_map.parent.is_dir():
            continue
        if label_map.is_file():
            cases.append(SourceCase(f"amos_{number:04d}", "train", partial(_read_amos, image, label_map)))
        else:
            faults.append(f"{image.name}: no label map labels{part}/{label_map.name}")
    num_ct = sum(number < FIRST_MRI for _, _, number in images)
    if num_ct:
        notes.append(f"{num_ct} CT cases (numbers below {FIRST_MRI}) are left out")
    unlabelled = sorted({part for part, _, _ in images if not (root / f"labels{part}").is_dir()})
    notes += [f"images{part} is left out, as labels{part} is missing" for part in unlabelled]
    for part in ("Tr", "Va"):
        names = {image.name for of_part, image, _ in images if of_part == part}
        for kind in ("images", "labels"):
            notes += note_unused(root / f"{kind}{part}", partial(_is_named, names=names))
    return Found(tuple(cases), tuple(faults), tuple(notes))


def _is_named(path: Path, *, names: Collection[str]) -> bool:
    """Return whether a file has one of several names."""
    return path.name in names


def find_flare(source: Path) -> Found | None:
    """Find the labelled CT of FLARE22.

    Images are `images/FLARE22_Tr_NNNN_0000.nii.gz`, label maps `labels/FLARE22_Tr_NNNN.nii.gz`.
    """
    root = first_folder(
        source, (".", "FLARE22_LabeledCase50", "FLARE22Train/FLARE22_LabeledCase50"), ("images",)
    )
    if root is None:
        return None
    cases, faults = [], []
    for image in visible_files(root / "images"):
        match = _FLARE.fullmatch(image.name)
        if match is None:
            continue
        label_map = root / "labels" / f"{match['case']}.nii.gz"
        if label_map.is_file():
            cases.append(SourceCase(match["case"], "train", partial(read_pair, image, label_map)))
        else:
            faults.append(f"{image.name}: no label map labels/{label_map.name}")
    if not cases and not faults:
        return None
    known = {f"{case.name}.nii.gz" for case in cases}
    notes = (
        *note_unused(root / "images", lambda path: bool(_FLARE.fullmatch(path.name))),
        *note_unused(root / "labels", lambda path: path.name in known),
    )
    return Found(tuple(cases), tuple(faults), notes)


def _read_amos(image: Path, label_map: Path) -> Sample:
    return Sample(read_image(image), renumber(read_label_map(label_map), _AMOS_VALUES, path=label_map))
