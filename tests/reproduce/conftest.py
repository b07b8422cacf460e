"""Small sources in the forms in which people have the papers' data sets."""

import numpy as np
import pytest
from PIL import Image

from scanseg.imaging import Image as Volume
from scanseg.imaging import write_image, write_label_map


def volume(array):
    """A volume with thick slices."""
    return Volume(array[np.newaxis], (5.0, 1.5, 1.5), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))


def write_case(image_path, label_path, *, seed, num_labels, shape=(6, 40, 44), empty=()):
    """Write a noisy volume with a bright box for each label."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, num_labels + 1):
        if label not in empty:
            y, x = divmod(label - 1, 4)
            labels[1:5, 2 + 9 * y : 9 + 9 * y, 2 + 10 * x : 10 + 10 * x] = label
    image = (30 * labels + rng.normal(0, 8, shape)).astype(np.float32)
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(image_path, volume(image))
    write_label_map(label_path, labels, like=volume(image))


@pytest.fixture
def acdc(tmp_path):
    """The official layout: four training patients, one that validates, two that test."""
    root = tmp_path / "ACDC" / "training"
    for seed, patient in enumerate(("001", "004", "005", "006", "019", "002", "003")):
        folder = root / f"patient{patient}"
        for frame in ("01", "12"):
            name = f"patient{patient}_frame{frame}"
            write_case(
                folder / f"{name}.nii.gz", folder / f"{name}_gt.nii.gz", seed=seed + int(frame), num_labels=3
            )
    return root.parent


@pytest.fixture
def amos(tmp_path):
    """AMOS22: MRI cases have numbers above 500."""
    root = tmp_path / "amos22"
    for seed, number in enumerate((507, 508, 510, 515, 518, 520)):
        name = f"amos_{number:04d}.nii.gz"
        write_case(root / "imagesTr" / name, root / "labelsTr" / name, seed=seed, num_labels=15)
    return root


@pytest.fixture
def cells(tmp_path):
    """Pictures with a number for each object."""
    root = tmp_path / "dsb2018"
    for folder in ("images", "instances"):
        (root / folder).mkdir(parents=True)
    for number in range(8):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:64, :72]
        numbers = np.zeros((64, 72), np.uint8)
        for index in range(3):
            centre = rng.uniform(12, 52, 2)
            numbers[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 60] = index + 1
        picture = 60 + 120 * (numbers > 0)[..., None] + rng.normal(0, 10, (64, 72, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / "images" / f"case{number}.png")
        Image.fromarray(numbers).save(root / "instances" / f"case{number}.png")
    return root
