"""The demo on a coarse brain with few steps: every part runs and every file exists."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import active_children

import pytest
from PIL import Image as PILImage

from scanseg.demo import run, training
from scanseg.errors import ScansegError, UsageError
from scanseg.imaging import read_image, read_label_map

MODULE = sys.modules[run.__module__]


@pytest.fixture
def few_steps(monkeypatch):
    small = {
        recipe: (
            *settings,
            "training.epochs=1",
            "training.iterations_per_epoch=2",
            "training.validation_batches=1",
        )
        for recipe, settings in training.SETTINGS.items()
    }
    monkeypatch.setattr(MODULE, "SETTINGS", small)
    return small


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@pytest.mark.parametrize("recipe", [None, "msvm-unet"])
def test_writes_scores_label_maps_and_a_picture(coarse_brain, few_steps, tmp_path, recipe):
    output = tmp_path / "out"
    recipes = ["msvm-unet", "xlstm-unet"] if recipe is None else [recipe]

    result = run(recipe=recipe, output=output)
    if recipe is not None:  # a second run replaces the first and equals it
        assert run(recipe=recipe, output=output).network_dice == result.network_dice

    assert list(result.network_dice) == recipes
    for name in recipes:
        assert set(result.network_dice[name]) == {"fluid", "grey matter", "white matter"}
        assert (output / "reports" / f"{name}.json").is_file()
        for case in ("slab-2", "slab-4"):
            label_map = read_label_map(result.label_maps / name / f"{case}.nii.gz")
            image = read_image(output / "dataset" / "imagesTr" / f"{case}_0000.nii.gz")
            assert label_map.shape == image.shape
            assert label_map.spacing == image.spacing
    assert 0.3 < result.threshold_dice["grey matter"] < 0.95
    with PILImage.open(result.picture) as picture:
        assert picture.width == pytest.approx(1.3 * 270 * (3 + len(recipes)), abs=2)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")

    with pytest.raises(UsageError, match="holds files that no demo wrote"):
        run(output=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "important"


@pytest.mark.parametrize(
    ("threads", "device", "num_jobs", "devices"),
    [
        ("1", "cpu", 2, ("cpu",)),
        ("2", "cpu", 2, ("cpu", "cpu")),
        ("8", "cpu", 2, ("cpu", "cpu")),
        ("8", "cpu", 1, ("cpu",)),
        pytest.param("8", "cuda", 2, ("cuda",), marks=pytest.mark.gpu),
    ],
)
def test_networks_share_the_cores_of_a_cpu_only(monkeypatch, threads, device, num_jobs, devices):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert MODULE._devices(device, num_jobs) == devices


@pytest.mark.slow  # starts two processes, which import PyTorch and train
def test_networks_that_train_at_the_same_time_score_as_in_turn(
    coarse_brain, few_steps, monkeypatch, tmp_path
):
    in_turn = run(output=tmp_path / "turn")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    updates = []
    together = run(output=tmp_path / "together", progress=updates.append)

    assert together.network_dice == in_turn.network_dice
    assert {update.task for update in updates} == {"networks"}
    assert {name for update in updates for name in few_steps if name in update.detail} == set(few_steps)
    assert (updates[-1].done, updates[-1].total) == (2, 2)


@pytest.mark.slow  # starts two processes, which import PyTorch and train
def test_a_failed_network_is_named_and_the_other_one_is_finished(
    coarse_brain, few_steps, two_cores, monkeypatch, tmp_path
):
    broken = {**few_steps, "xlstm-unet": (*few_steps["xlstm-unet"], "training.optimizer.lr=1e30")}
    monkeypatch.setattr(MODULE, "SETTINGS", broken)

    with pytest.raises(ScansegError, match=r"^xlstm-unet on cpu: .*loss"):
        run(output=tmp_path / "out")
    assert (tmp_path / "out" / "reports" / "msvm-unet.json").is_file()
    assert not active_children()


@pytest.mark.slow  # waits for the first steps of the whole demo
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no such signals")
def test_an_interrupt_ends_both_trainings(tmp_path):
    words = [sys.executable, "-m", "scanseg", "demo", "-o", tmp_path / "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    with subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            while (line := process.stderr.readline()) and "epoch 1" not in line:
                pass
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
            rest = process.stderr.read()  # ends with the last process
            assert process.wait(timeout=60) == 130
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert rest.strip().endswith("stopped. Run the same command to start again")
