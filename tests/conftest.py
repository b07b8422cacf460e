"""What every test may ask for."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

# Tests share the cores with each other, and their networks are too small for threads. Numerical libraries read these
# when they are loaded, after this; the processes that tests start inherit them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "agg"
# Without a GPU Triton's kernels run in its interpreter; it reads this when the kernels are defined.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End a worker whose GPU a test has broken (an illegal address): xdist starts another."""
    if item.get_closest_marker("gpu") is None or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        time.sleep(1.0)  # the report of the test is on its way
        os._exit(1)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it is not part of the project")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real annotated images, beside the checkout."""
    return _shared("data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of records of the published networks, beside the checkout."""
    return _shared("golden")


@dataclass(frozen=True)
class Outcome:
    """What a person sees of a command that ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `scanseg WORDS...` in this process."""
    from scanseg.cli import main

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def generator():
    """A seeded torch generator."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng():
    """A seeded numpy generator."""
    import numpy as np

    return np.random.default_rng(0)


def write_volume(path: Path, array: np.ndarray, spacing: Sequence[float] = (3.0, 0.5, 0.75)) -> None:
    """Write (z, y, x) with spacing z, y, x."""
    import SimpleITK

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
