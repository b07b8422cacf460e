"""These tests cover predictions on several devices, and clusters.

Their fixtures give a model folder with random weights, and folders of small pictures.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import scanseg
from scanseg.models import ModelFolder, network_of
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_picture


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of a small 2D xLSTM-UNet with random weights."""
    folder = tmp_path_factory.mktemp("cohort")
    dataset = write_disks(folder / "dataset", numbers=range(4))
    plan = scanseg.make_plan(dataset, settings=SMALL_XLSTM_UNET_2D, num_workers=0, progress=False)
    torch.manual_seed(0)
    ModelFolder.create(folder / "model", plan).write_weights(network_of(plan).state_dict())
    return folder / "model"


def write_pictures(folder: Path, number: int, *, size: tuple[int, int] = (24, 30)) -> Path:
    """Write noisy grey pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        write_picture(folder / f"case_{index:03}_0000.png", rng.integers(0, 256, size).astype(np.uint8))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folder of eight pictures."""
    return write_pictures(tmp_path / "images", 8)


def read_outputs(folder: Path) -> dict[str, bytes]:
    """Return the content of all files but the record."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "prediction.json"
    }


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch):
    """Compute with one thread here and in workers, so that sums have the same order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
