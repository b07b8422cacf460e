"""Small data sets with easy shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image


def _write_description(
    folder: Path, *, channels: tuple[str, ...], labels: dict[str, int], ending: str
) -> None:
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": len(list((folder / "labelsTr").iterdir())),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def write_raster_dataset(folder: Path, *, num_cases: int) -> None:
    """Write RGB pictures with a reddish disk on a bluish ground, noise on both."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        size = (56, 64)
        y, x = np.mgrid[: size[0], : size[1]]
        centre, radius = rng.uniform(16, 40, size=2), rng.uniform(9, 15)
        disk = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        image = np.where(disk[..., None], (170, 90, 80), (70, 90, 150)) + rng.normal(0, 25, (*size, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            folder / "imagesTr" / f"case_{number}_0000.png"
        )
        Image.fromarray(disk.astype(np.uint8)).save(folder / "labelsTr" / f"case_{number}.png")
    _write_description(
        folder, channels=("red", "green", "blue"), labels={"background": 0, "disk": 1}, ending=".png"
    )


def write_volume(path: Path, array: np.ndarray) -> None:
    """Write a NIfTI file with an oblique, anisotropic grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.2, 1.5))
    image.SetOrigin((-20.0, 13.0, 5.0))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(path))


def write_volume_dataset(folder: Path, *, num_cases: int) -> None:
    """Write volumes with a bright ball and a dark box, noise on all."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        shape = (20, 26, 28)
        z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
        ball = ((z - rng.uniform(8, 12)) ** 2 + (y - 8) ** 2 + (x - rng.uniform(8, 20)) ** 2) < 36
        labels = ball.astype(np.uint8)
        start = rng.integers((3, 15, 3), (8, 17, 16))
        labels[tuple(slice(s, s + 9) for s in start)] = 2
        image = np.array([100.0, 160.0, 40.0])[labels] + rng.normal(0, 12, shape)
        write_volume(folder / "imagesTr" / f"case_{number}_0000.nii.gz", image.astype(np.float32))
        write_volume(folder / "labelsTr" / f"case_{number}.nii.gz", labels)
    _write_description(
        folder, channels=("MR",), labels={"background": 0, "ball": 1, "box": 2}, ending=".nii.gz"
    )


@pytest.fixture(scope="session")
def raster_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten RGB pictures (PNG), one label; not to be changed."""
    folder = tmp_path_factory.mktemp("raster") / "disks"
    write_raster_dataset(folder, num_cases=10)
    return folder


@pytest.fixture(scope="session")
def volume_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes (NIfTI), two labels; not to be changed."""
    folder = tmp_path_factory.mktemp("volume") / "bodies"
    write_volume_dataset(folder, num_cases=5)
    return folder
