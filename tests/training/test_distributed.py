"""Two processes that share each batch learn what one does."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.models import ModelFolder
from tests.training.launching import forked, torchrun

from .conftest import SETTINGS

SHARED = (
    *SETTINGS,
    *(
        "sampling.batch_size=4",
        "training.epochs=3",
        "training.validate_every=1",
        "training.checkpoint_seconds=0",
    ),
    'training.optimizer={"kind": "sgd", "lr": 0.01, "momentum": 0.9}',
    'augmentation=[{"kind": "affine", "rotation_probability": 1.0}, {"kind": "gaussian-noise", "probability": 0.5},'
    ' {"kind": "mirror", "axes": [0, 1]}]',
)


def words_of(dataset, model, *settings):
    chosen = [word for setting in (*SHARED, *settings) for word in ("--set", setting)]
    return (dataset, "-o", model, "--device", "cpu", *chosen)


EVERYTHING = (
    "training.loss.dice_over_batch=false",
    *("training.accumulation_steps=2", "training.ema_decay=0.9", "training.export=best"),
    *("training.case_storage=disk", "training.validation_batches=3", 'sampling.label_weights={"disk": 2}'),
    'training.early_stop={"patience_epochs": 3}',
)


@pytest.mark.parametrize(
    ("launch", "settings", "num_workers"),
    [(torchrun, ("training.loss.dice_over_batch=true",), 0), (forked, EVERYTHING, 2)],
    ids=["over-batch", "everything"],
)
def test_two_processes_train_like_one(dataset, tmp_path, launch, settings, num_workers):
    one, two = tmp_path / "one", tmp_path / "two"
    scanseg.train(dataset, one, settings=(*SHARED, *settings), device="cpu", num_workers=0)

    process = launch(*words_of(dataset, two, *settings), "--num-workers", num_workers)
    said, complained = process.communicate(timeout=240)

    assert process.returncode == 0, complained
    assert said.count("validation Dice") == 1
    assert json.loads((two / "run.json").read_text())["sessions"][0]["num_processes"] == 2
    ours, theirs = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)  # float32 sums in another order
    lines = [ModelFolder.open(folder).metrics.read() for folder in (one, two)]
    for alone, together in zip(*lines, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        assert together["validation_dice"]["disk"] == pytest.approx(
            alone["validation_dice"]["disk"], abs=0.01
        )
    reports = [json.loads((folder / "validation.json").read_text()) for folder in (one, two)]
    assert [case["case"] for case in reports[0]["cases"]] == [case["case"] for case in reports[1]["cases"]]


def test_a_batch_that_cannot_be_shared_is_refused_once(dataset, tmp_path):
    process = forked(*words_of(dataset, tmp_path / "model", "sampling.batch_size=3"), "--num-workers", 0)
    _, complained = process.communicate(timeout=240)

    assert process.returncode != 0
    assert complained.count("batch_size 3 is not divisible by 2 processes. Use --batch-size 4.") == 1


LONG = ("training.epochs=400",)


def wait_for_an_epoch(process, model):
    while not (model / "metrics.jsonl").is_file() or not (model / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by Linux's /proc")
def test_one_that_is_killed_ends_all_and_the_first_says_so(dataset, tmp_path):
    model = tmp_path / "model"
    process = torchrun(*words_of(dataset, model, *LONG), "--num-workers", 0)
    wait_for_an_epoch(process, model)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]

    os.kill(int(second[0]), signal.SIGKILL)
    _, complained = process.communicate(timeout=120)

    assert process.returncode != 0
    assert complained.count("error: another of the 2 processes ended") == 1
    assert "[rank0]" not in complained  # no traceback of ours
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_signal_stops_all_and_all_go_on(dataset, tmp_path):
    model = tmp_path / "model"
    process = forked(*words_of(dataset, model, *LONG), "--num-workers", 0, start_new_session=True)
    wait_for_an_epoch(process, model)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    run = json.loads((model / "run.json").read_text())
    assert run["status"] == "interrupted"
    assert 0 < run["iterations_done"] < 800

    plan = json.loads((model / "plan.json").read_text())
    plan["training"]["epochs"] = run["epochs_done"] + 2
    (model / "plan.json").write_text(json.dumps(plan))
    resumed = forked(dataset, "-o", model, "--resume", "--device", "cpu", "--num-workers", 0)
    _, complained = resumed.communicate(timeout=240)

    assert resumed.returncode == 0, complained
    finished = json.loads((model / "run.json").read_text())
    assert (finished["status"], finished["epochs_done"]) == ("finished", run["epochs_done"] + 2)


LEAVING = """
import os
from pathlib import Path

import torch

from scanseg.runtime.distributed import join_processes

with join_processes("cpu") as (processes, _):
    import torch._dynamo  # loads much of torch.distributed

    processes.sum(torch.ones(1))
names = [Path("/proc/self/task", thread, "comm").read_text().strip() for thread in os.listdir("/proc/self/task")]
os.write(1, f"{[name for name in names if 'gloo' in name]}\\n".encode())  # at once: two processes write
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux tells of threads in /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    script = tmp_path / "leave.py"
    script.write_text(LEAVING)
    said, complained = torchrun(program=(script,)).communicate(timeout=120)
    assert said.splitlines() == ["[]", "[]"], complained
