import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK


def write_volume(path: Path, array: np.ndarray, spacing: Sequence[float] = (3.0, 0.5, 0.75)) -> None:
    """Write (z, y, x) with spacing z, y, x."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(list(spacing)[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write a raw data set of random volumes with a labelled box each."""

    def make(
        num_cases: int = 3,
        *,
        num_channels: int = 1,
        shape=(5, 12, 10),
        name: str = "raw",
        **description: object,
    ) -> Path:
        folder, rng = tmp_path / name, np.random.default_rng(0)
        for number in range(num_cases):
            label_map = np.zeros(shape, dtype=np.uint8)
            label_map[1:4, 3:8, 2:6] = 1
            label_map[2, 4:6, 3:5] = 2
            write_volume(folder / f"labelsTr/case_{number}.nii.gz", label_map)
            for channel in range(num_channels):
                image = rng.integers(1, 500, shape) + label_map * np.int64(300)
                write_volume(folder / f"imagesTr/case_{number}_{channel:04d}.nii.gz", image.astype(np.int16))
        content = {
            "channel_names": {str(channel): f"c{channel}" for channel in range(num_channels)},
            "labels": {"background": 0, "outer": 1, "inner": 2},
            "numTraining": num_cases,
            "file_ending": ".nii.gz",
            **description,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def volume_writer() -> Callable[..., None]:
    return write_volume
