"""These tests cover reports in HTML and pictures from files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scanseg.imaging import write_image, write_probabilities
from tests.factories import image_of, write_labels

LABELS = {"background": 0, "liver <b>": 1, "spleen": 2}
"""One name holds a tag, which a page must not take as one."""
SHAPE = (10, 16, 16)


def cube(start: int, value: int, *, label_map: np.ndarray | None = None, size: int = 5) -> np.ndarray:
    """Return a label map with a cube that starts at (start, start, start)."""
    label_map = np.zeros(SHAPE, np.uint8) if label_map is None else label_map
    label_map[start : start + size, start : start + size, start : start + size] = value
    return label_map


@pytest.fixture
def make_predictions(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """Write predictions, references and images of some cases. Each prediction is shifted by its number modulo 3."""

    def make(num_cases: int = 3, *, with_maps: bool = True) -> tuple[Path, Path, Path]:
        folders = tuple(tmp_path / name for name in ("predictions", "references", "images"))
        predictions, references, images = folders
        for number in range(num_cases):
            name, shift = f"case_{number}", number % 3
            reference = cube(4, 2, label_map=cube(1, 1, size=3), size=4)
            prediction = np.roll(reference, shift, axis=2)
            intensities = reference.astype(np.float32) * 40 + np.arange(16, dtype=np.float32)
            image = image_of(intensities[None], spacing=(2.0, 1.0, 1.0))
            images.mkdir(exist_ok=True)
            write_image(images / f"{name}_0000.nii.gz", image)
            write_labels(references / f"{name}.nii.gz", reference, spacing=(2.0, 1.0, 1.0))
            write_labels(predictions / f"{name}.nii.gz", prediction, spacing=(2.0, 1.0, 1.0))
            if with_maps:
                likely = np.full((3, *SHAPE), 0.05, np.float16)
                for value in range(3):
                    likely[value][prediction == value] = 0.9
                write_probabilities(predictions / f"{name}.npz", likely, like=image)
                entropy = np.where(prediction == reference, 0.1, 0.7).astype(np.float32)
                (predictions / "entropy").mkdir(exist_ok=True)
                write_image(
                    predictions / "entropy" / f"{name}.nii.gz", image_of(entropy[None], spacing=image.spacing)
                )
        content = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}
        for folder in (predictions, references):
            (folder / "dataset.json").write_text(json.dumps(content))
        return predictions, references, images

    return make
