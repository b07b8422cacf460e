"""Demo data set: slabs of the MNI152 template with noise and shading.

Source: the ICBM 2009a symmetric average of 152 brains with its maps of grey and white matter, Fonov et al. 2009
(doi:10.1016/S1053-8119(09)70884-5). The package nilearn contains it. The rest of the brain is cerebrospinal fluid. The
template is exactly symmetric about its middle plane, so the labels do not distinguish sides.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.imaging import Image, read_image, write_image, write_label_map

TISSUES = {"fluid": 1, "grey matter": 2, "white matter": 3}
"""Values of the labels, from the darkest tissue to the brightest."""
TRAINING_SLABS = ("slab-1", "slab-3", "slab-5")
UNSEEN_SLABS = ("slab-2", "slab-4")
NUM_SCANS = 4
"""Images of each training slab. They differ in noise and shading."""

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
    slabs = sorted(TRAINING_SLABS + UNSEEN_SLABS)
    edges = np.linspace(0, brain.shape[_CORONAL_AXIS], len(slabs) + 1).round().astype(int)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for name, start, stop in zip(slabs, edges[:-1], edges[1:], strict=True):
        box = [slice(0, size) for size in brain.shape]
        box[_CORONAL_AXIS] = slice(int(start), int(stop))
        slab = _crop(brain, box)
        for case in case_names(name):
            disturbed = replace(slab, array=_disturb(slab.array[0], rng=rng)[None])
            write_image(folder / "imagesTr" / f"{case}_0000.nii.gz", disturbed)
            write_label_map(folder / "labelsTr" / f"{case}.nii.gz", tissues[tuple(box)], like=slab)
    training = [case for name in TRAINING_SLABS for case in case_names(name)]
    description = {
        "name": "mni152-tissues",
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, **TISSUES},
        "numTraining": len(training) + len(UNSEEN_SLABS),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    splits = [{"train": training, "val": UNSEEN_SLABS}]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


def case_names(slab: str) -> tuple[str, ...]:
    """Return the names of the cases of a slab.

    Args:
        slab: Name of a slab. Training slabs have `NUM_SCANS` cases, unseen slabs have one with their name.
    """
    if slab in UNSEEN_SLABS:
        return (slab,)
    return tuple(f"{slab}-scan-{number}" for number in range(1, NUM_SCANS + 1))


def read_template() -> tuple[Image, UInt8[np.ndarray, "z y x"]]:
    """Read the brain template and its tissues, cropped to the brain.

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
    brain = _largest_component(template.array[0] > 0)
    shares = [image.array[0].astype(np.float32) / image.array.max() for image in (grey, white)]
    fluid = 1 - shares[0] - shares[1]
    tissues = np.where(brain, 1 + np.argmax([fluid, *shares], axis=0), 0).astype(np.uint8)
    (box,) = ndimage.find_objects(brain.astype(np.uint8))
    intensities = np.where(brain, template.array.astype(np.float32) / template.array.max(), 0)
    return _crop(replace(template, array=intensities), box), tissues[box]


def _largest_component(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Return the largest connected component of a mask."""
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == sizes.argmax()


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
