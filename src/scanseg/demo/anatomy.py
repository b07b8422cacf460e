"""Demo data set: slabs of the MNI152 template with noise and shading.

Source: the ICBM 2009a symmetric average of 152 brains with its maps of grey and white matter, Fonov et al. 2009
(doi:10.1016/S1053-8119(09)70884-5). The package nilearn contains it. The template is exactly symmetric about its middle
plane, so the labels do not distinguish sides.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, write_image, write_label_map

TISSUES = {"grey matter": 1, "white matter": 2}
TRAINING_SLABS = ("slab-1", "slab-3")
UNSEEN_SLABS = ("slab-2", "slab-4")

_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_NOISE = 0.07
"""Standard deviation of the noise, as a fraction of the range of intensities."""
_SHADING = 0.4
"""Largest relative change of intensities by shading."""
_CORONAL_AXIS = 1


def make_dataset(folder: Path, *, seed: int = 0) -> Path:
    """Write the data set in nnU-Net's raw layout, with one fold.

    Args:
        folder: Folder to write, new or empty.
        seed: Seed of noise and shading.

    Returns:
        The folder.

    Raises:
        InputError: nilearn, which contains the template, is not installed.
    """
    brain, tissues = read_template()
    rng = np.random.default_rng(seed)
    names = sorted(TRAINING_SLABS + UNSEEN_SLABS)
    edges = np.linspace(0, brain.shape[_CORONAL_AXIS], len(names) + 1).round().astype(int)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True):
        box = [slice(0, size) for size in brain.shape]
        box[_CORONAL_AXIS] = slice(int(start), int(stop))
        slab = _crop(brain, box)
        disturbed = replace(slab, array=_disturb(slab.array[0], rng=rng)[None])
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", disturbed)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", tissues[tuple(box)], like=slab)
    description = {
        "name": "mni152-tissues",
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, **TISSUES},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    splits = [{"train": TRAINING_SLABS, "val": UNSEEN_SLABS}]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


def read_template() -> tuple[Image, UInt8[np.ndarray, "z y x"]]:
    """Read the brain template and its tissues, cropped to the tissues.

    Returns:
        The image with intensities from 0 to 1, and the label map.

    Raises:
        InputError: nilearn, which contains the template, is not installed.
    """
    package = find_spec("nilearn")
    if package is None or package.origin is None:
        raise InputError('the demo needs the brain template in nilearn: pip install "scanseg[demo]"')
    folder = Path(package.origin).parent / "datasets" / "data"
    template, grey, white = (read_image(folder / _FILE.format(kind)) for kind in ("t1", "gm", "wm"))
    tissues = np.zeros(template.shape, dtype=np.uint8)
    for label, tissue in enumerate((grey, white), start=1):
        tissues[tissue.array[0] > tissue.array.max() / 2] = label
    (box,) = ndimage.find_objects((tissues > 0).astype(np.uint8))
    intensities = template.array.astype(np.float32) / template.array.max()
    return _crop(replace(template, array=intensities), box), tissues[box]


def _crop(image: Image, box: Sequence[slice]) -> Image:
    """Crop an image to a box and move its origin accordingly."""
    origin = list(image.origin)
    for axis, part in enumerate(box):
        column = len(box) - 1 - axis
        for row in range(len(box)):
            cosine = image.direction[len(box) * row + column]
            origin[row] += cosine * image.spacing[axis] * part.start
    return replace(image, array=image.array[(slice(None), *box)], origin=tuple(origin))


def _disturb(
    intensities: Float[np.ndarray, "z y x"], *, rng: np.random.Generator
) -> Float[np.ndarray, "z y x"]:
    """Shade an image smoothly and add noise."""
    coarse = rng.standard_normal((4, 4, 4))
    shading = ndimage.zoom(coarse, [size / 4 for size in intensities.shape], order=3)
    shading *= _SHADING / np.abs(shading).max()
    noise = _NOISE * rng.standard_normal(intensities.shape)
    return (intensities * (1 + shading) + noise).astype(np.float32)
