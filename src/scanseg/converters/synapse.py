"""Synapse (BTCV): abdominal CT, in TransUNet's or the challenge's layout.

Source of layout and split: Chen et al. 2021, arXiv:2102.04306. TransUNet scales [-125, 275] Hounsfield units to [0, 1].
Both layouts are converted to Hounsfield units clipped to this range, because recipes normalize Hounsfield units.
"""

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scanseg.converters.arrays import find_missing_slices, read_hdf5, stack_slices, volume_sample
from scanseg.converters.labels import renumber
from scanseg.converters.published import note_missing, published_split
from scanseg.converters.sources import (
    Found,
    Part,
    Sample,
    SourceCase,
    first_folder,
    note_unused,
    visible_files,
)
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map

LOWER_HU, UPPER_HU = -125.0, 275.0
_BTCV_VALUES = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8} | dict.fromkeys((5, 9, 10, 12, 13), 0)
"""New value of each of the challenge's 13 organs. Esophagus, IVC, veins and adrenals become background."""
_SLICE = re.compile(r"case(?P<case>\d{4})_slice(?P<slice>\d{3})\.npz")
_VOLUME = re.compile(r"case(?P<case>\d{4})\.npy\.h5")
_KEYS = ("image", "label")


def find_transunet(source: Path) -> Found | None:
    """Find the cases in TransUNet's layout.

    Training slices are in `train_npz`, test volumes in `test_vol_h5`.
    """
    root = first_folder(
        source,
        (".", "Synapse", "data/Synapse", "project_TransUNet/data/Synapse"),
        ("train_npz", "test_vol_h5"),
    )
    if root is None:
        return None
    slices: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in visible_files(root / "train_npz"):
        if match := _SLICE.fullmatch(path.name):
            slices[match["case"]][int(match["slice"])] = path
    volumes = {
        match["case"]: path
        for path in visible_files(root / "test_vol_h5")
        if (match := _VOLUME.fullmatch(path.name))
    }
    split = published_split("synapse")
    faults = [
        f"case {case}: slices {', '.join(f'{number:03d}' for number in missing)} are missing in train_npz"
        for case, numbers in sorted(slices.items())
        if (missing := find_missing_slices(numbers))
    ]
    for folder, part, present in (
        ("train_npz", "train", slices.keys()),
        ("test_vol_h5", "test", volumes.keys()),
    ):
        faults += [
            f"case {case}: in {folder}, but no {part} case of the published split"
            for case in sorted(present)
            if split.get(case) != part
        ]
    cases = [
        SourceCase(f"case{case}", "train", partial(_read_slices, tuple(numbers[n] for n in sorted(numbers))))
        for case, numbers in sorted(slices.items())
    ]
    cases += [
        SourceCase(f"case{case}", "test", partial(_read_volume, path))
        for case, path in sorted(volumes.items())
    ]
    notes = (
        "these files have no spacing: it is set to 1, so distances are in voxels",
        *note_missing(split, {*slices, *volumes}, "cases"),
        *note_unused(root / "train_npz", lambda path: bool(_SLICE.fullmatch(path.name))),
        *note_unused(root / "test_vol_h5", lambda path: bool(_VOLUME.fullmatch(path.name))),
    )
    return Found(tuple(cases), tuple(faults), notes)


def find_btcv(source: Path) -> Found | None:
    """Find the cases in the challenge's layout.

    Images are `img/imgNNNN.nii.gz`, label maps `label/labelNNNN.nii.gz`.
    """
    root = first_folder(source, (".", "Training", "RawData/Training", "Abdomen/RawData/Training"), ("img",))
    if root is None:
        return None
    images, label_maps = (
        {
            match[1]: path
            for path in visible_files(root / kind)
            if (match := re.fullmatch(rf"{kind}(\d{{4}})\.nii(\.gz)?", path.name))
        }
        for kind in ("img", "label")
    )
    split = published_split("synapse")
    faults = [
        f"img{case}: no label{case}.nii.gz in label" for case in sorted(images.keys() - label_maps.keys())
    ]
    faults += [
        f"label{case}: no img{case}.nii.gz in img" for case in sorted(label_maps.keys() - images.keys())
    ]
    both = sorted(images.keys() & label_maps.keys())
    faults += [f"img{case}: not in the published split" for case in both if case not in split]
    cases = tuple(
        SourceCase(f"case{case}", _part(split, case), partial(_read_btcv, images[case], label_maps[case]))
        for case in both
    )
    return Found(cases, tuple(faults), note_missing(split, both, "cases"))


def _part(split: dict[str, Part], case: str) -> Part:
    return split.get(case, "train")


def _read_slices(paths: tuple[Path, ...]) -> Sample:
    """Read the slices of one case."""
    return _sample(*stack_slices(paths, _KEYS), path=paths[0])


def _read_volume(path: Path) -> Sample:
    """Read a test volume."""
    return _sample(*read_hdf5(path, _KEYS), path=path)


def _sample(image: np.ndarray, labels: np.ndarray, *, path: Path) -> Sample:
    """Convert arrays in TransUNet's form to a sample.

    Args:
        image: Intensities (z, y, x) in [0, 1].
        labels: Label map (z, y, x).
        path: File of the arrays, for messages.
    """
    if not (image.min() >= -1e-3 and image.max() <= 1 + 1e-3):
        raise InputError(f"{path}: expected intensities in [0, 1], got {image.min():g} to {image.max():g}.")
    hounsfield = image.astype(np.float32) * (UPPER_HU - LOWER_HU) + LOWER_HU
    return volume_sample(hounsfield, labels, path=path)


def _read_btcv(image_path: Path, label_path: Path) -> Sample:
    """Read a case of the challenge."""
    image, label_map = read_image(image_path), read_label_map(label_path)
    clipped = np.clip(image.array.astype(np.float32), LOWER_HU, UPPER_HU)
    return Sample(replace(image, array=clipped), renumber(label_map, _BTCV_VALUES, path=label_path))
