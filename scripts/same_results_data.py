"""Synthetic data sets for `same_results.py`."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from PIL import Image

NUM_CASES = 6
ENDINGS = {"volumes": ".nii.gz", "regions": ".mha", "pictures": ".png", "columns": ".nii.gz"}
"""Name of each data set to the ending of its files."""

_CHANNELS = {"regions": ("CT", "MR"), "pictures": ("red", "green", "blue")}
_SHAPES = {"pictures": (1, 48, 56), "columns": (16, 16, 1500)}
"""Shapes along z, y, x. A planned patch holds less than a quarter of a column, so that a low resolution is planned."""


def write_datasets(folder: Path) -> None:
    """Write the synthetic data sets. Existing ones are reused."""
    for name in ENDINGS:
        if not (folder / name).is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                write_dataset(Path(temporary) / name, name)
                (Path(temporary) / name).rename(folder / name)


def write_dataset(folder: Path, name: str) -> None:
    """Write one data set in nnU-Net's layout, split into two folds."""
    ending, channels = ENDINGS[name], _CHANNELS.get(name, ("MR",))
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(NUM_CASES):
        images, label_map = draw_case(name, number)
        for channel, image in enumerate(images):
            write_image(folder / "imagesTr" / f"case_{number}_{channel:04d}{ending}", image)
        write_image(folder / "labelsTr" / f"case_{number}{ending}", label_map)
    description: dict[str, Any] = {
        "channel_names": {str(channel): channel_name for channel, channel_name in enumerate(channels)},
        "labels": {"background": 0, "ball": 1, "box": 2},
        "numTraining": NUM_CASES,
        "file_ending": ending,
    }
    if name == "regions":
        description["labels"] = {"background": 0, "whole": [1, 2], "box": 2, "ignore": 3}
        description["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(description))
    halves = [[f"case_{number}" for number in range(first, NUM_CASES, 2)] for first in (0, 1)]
    folds = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    (folder / "splits_final.json").write_text(json.dumps(folds))


def draw_case(name: str, number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw a case: an array for each image file, and the label map."""
    rng = np.random.default_rng([list(ENDINGS).index(name), number])
    shape = _SHAPES.get(name, (24, 32, 28))
    period = 100 if name == "columns" else max(shape)
    z, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    centre = rng.uniform(0.35, 0.65, size=3)
    distance = (z - centre[0] * shape[0]) ** 2 + (y - centre[1] * shape[1]) ** 2 + (x % period - 12) ** 2
    box = (
        (abs(y - shape[1] // 2) < 6) & (abs(x % period - 18 - rng.integers(0, 4)) < 6) & (z < shape[0] * 0.7)
    )
    label_map = np.where(box, 2, np.where(distance < 60, 1, 0)).astype(np.uint8)
    levels = np.array([[60, 150, 220], [200, 90, 130], [90, 60, 180]])
    num_channels = len(_CHANNELS.get(name, ("MR",)))
    images = [levels[channel][label_map] + rng.normal(0, 20, shape) for channel in range(num_channels)]
    if name == "pictures":
        return [np.stack([image[0] for image in images], axis=-1).clip(0, 255).astype(np.uint8)], label_map[0]
    if name == "regions":
        label_map[:: number + 5] = 3
    return [image.astype(np.float32) for image in images], label_map


def write_image(path: Path, array: np.ndarray) -> None:
    """Write a picture, or a volume on an oblique grid."""
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
        return
    image = SimpleITK.GetImageFromArray(array)
    if array.shape[2] < 100:
        image.SetSpacing((1.0, 1.2, 1.5))
        image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    image.SetOrigin((-20.0, 13.0, 5.0))
    SimpleITK.WriteImage(image, str(path))
