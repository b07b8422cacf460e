"""Trainings that are stopped from outside go on from their model folder as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scanseg.models import ModelFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM and SIGKILL to send")

SETTINGS = (
    *("sampling.patch_size=[16, 16, 16]", "sampling.batch_size=2", "network.features=[4, 8]"),
    *("network.strides=[[1, 1, 1], [2, 2, 2]]", "network.kernel_sizes=[[3, 3, 3], [3, 3, 3]]"),
    *("training.iterations_per_epoch=15", "training.epochs=4", "training.checkpoint_seconds=0"),
)


@pytest.fixture(scope="module")
def planned(volume_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plan of a short training, and a folder for stores."""
    from scanseg import make_plan

    folder = tmp_path_factory.mktemp("planned")
    plan = make_plan(volume_dataset, recipe="xlstm-unet", settings=SETTINGS, num_workers=0)
    (folder / "plan.json").write_text(plan.to_json())
    return folder / "plan.json", folder / "stores"


@pytest.fixture(scope="module")
def uninterrupted(
    planned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """Return the weights after an uninterrupted training."""
    from scanseg import train

    plan, store = planned
    model = tmp_path_factory.mktemp("uninterrupted") / "model"
    train(plan, model, store=store, device="cpu", num_workers=0)
    return load_file(model / "model.safetensors")


def words(planned: tuple[Path, Path], model: Path) -> list[str]:
    plan, store = planned
    options = {"--output": model, "--store": store, "--device": "cpu", "--num-workers": 0}
    return ["train", str(plan), *(str(word) for pair in options.items() for word in pair)]


def wait_for_epoch(model: Path, epoch: int) -> None:
    """Wait until a checkpoint of an epoch is written."""
    for _ in range(1200):
        record = model / "run.json"
        if record.is_file() and json.loads(record.read_text())["epochs_done"] >= epoch:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{model} did not come to epoch {epoch}")


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGKILL, -9, "running"),
    ],
)
def test_goes_on_to_the_same_weights(
    command,
    planned: tuple[Path, Path],
    uninterrupted: dict[str, torch.Tensor],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    status: str,
) -> None:
    model = tmp_path / "model"
    with subprocess.Popen(
        [sys.executable, "-m", "scanseg", *words(planned, model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_epoch(model, 1)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    if number is not signal.SIGKILL:
        assert "--resume" in stderr
    assert json.loads((model / "run.json").read_text())["status"] == status
    assert not (model / "model.safetensors").exists()

    outcome = command(*words(planned, model), "--resume")
    assert outcome.code == 0, outcome.stderr
    assert json.loads((model / "run.json").read_text())["status"] == "finished"
    metrics = ModelFolder.open(model).metrics.read()
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    resumed = load_file(model / "model.safetensors")
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in uninterrupted.items())


def test_a_model_is_not_overwritten(command, planned: tuple[Path, Path], tmp_path: Path) -> None:
    plan, store = planned
    (tmp_path / "notes.txt").write_text("mine")
    outcome = command("train", plan, "-o", tmp_path, "--store", store, "--num-workers", 0)
    assert outcome.code == 2
    assert str(tmp_path) in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
