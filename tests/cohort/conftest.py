"""These tests cover predictions on several devices, and clusters.

Their fixtures give a model folder with random weights, and folders of small pictures.
"""

import json
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


def write_comparison(path: Path) -> Path:
    """Write a comparison of two arms, each with one training of two steps."""
    content = {
        "title": "Blocks",
        "question": "Do they help?",
        "recipe": "xlstm-unet-2d",
        "settings": [
            *SMALL_XLSTM_UNET_2D,
            *("training.epochs=1", "training.iterations_per_epoch=2", "training.validation_batches=1"),
        ],
        "arms": [
            {"name": "none", "settings": ["network.sequence_block=none"]},
            {"name": "ViL", "settings": []},
        ],
        "seeds": [0],
        "folds": [0],
    }
    path.write_text(json.dumps(content))
    return path


def read_comparison(folder: Path) -> dict[str, object]:
    """Return scores of a comparison, and weights of its models."""
    record = json.loads((folder / "comparison.json").read_text())
    assert not record["missing"]
    scores = {arm["name"]: [run["mean_dice"] for run in arm["runs"]] for arm in record["arms"]}
    weights = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("model.safetensors"))
    }
    assert len(weights) == 2
    return {"scores": scores, **weights}


def read_arrays(store: Path) -> dict[str, bytes]:
    """Return index and arrays of all cases of a store. Records of cases have dates."""
    files = [*sorted(store.glob("cases/*/*.b2nd")), store / "store.json"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


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
