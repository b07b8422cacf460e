"""A model folder keeps its last checkpoint after any failure, and names damaged files."""

import contextlib
import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from scanseg.errors import InputError, UsageError
from scanseg.models import Checkpoint, ModelFolder, check_network
from scanseg.models.tensors import read_tensors, write_tensors
from scanseg.specs import (
    Plan,
    TrainingState,
)
from tests.factories import make_plan


def checkpoint(iterations, *, value=0.0):
    state = TrainingState(iterations_done=iterations, training_seconds=1.5, optimizer_groups=({"lr": 0.1},))
    return Checkpoint(state, network={"a": torch.full((3,), value)}, optimizer={"0.step": torch.ones(())})


@pytest.fixture
def folder(tmp_path):
    return ModelFolder.create(tmp_path / "model", make_plan())


@pytest.mark.parametrize("iteration", [7, 8], ids=["same iteration", "later iteration"])
def test_a_crash_while_a_checkpoint_is_written_leaves_the_last_one(folder, monkeypatch, iteration):
    folder.write_checkpoint(checkpoint(7, value=7.0))

    def crash(tensors, path):
        raise KeyboardInterrupt

    monkeypatch.setattr("scanseg.models.tensors.save_file", crash)
    with contextlib.suppress(KeyboardInterrupt):
        folder.write_checkpoint(checkpoint(iteration, value=7.0))

    kept = folder.read_checkpoint()
    assert kept.state.iterations_done == 7
    assert kept.network["a"].tolist() == [7.0] * 3


def test_the_newest_checkpoint_takes_the_place_of_the_others(folder):
    assert folder.read_checkpoint() is None
    for iteration in (5, 10, 20):
        folder.write_checkpoint(checkpoint(iteration, value=iteration))

    assert folder.read_checkpoint().network["a"].tolist() == [20.0] * 3
    assert [path.name for path in (folder.path / "state").iterdir()] == ["iteration-000000020"]


@pytest.mark.parametrize("name", ["state.json", "network.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_a_damaged_checkpoint_is_named_and_can_be_replaced(folder, name, content):
    folder.write_checkpoint(checkpoint(5))
    path = next((folder.path / "state").iterdir()) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=name):
        folder.read_checkpoint()
    folder.write_checkpoint(checkpoint(5, value=2.0))
    assert folder.read_checkpoint().network["a"].tolist() == [2.0] * 3


def test_metrics_after_the_checkpoint_and_lines_cut_short_are_dropped(folder):
    assert folder.metrics.read() == []
    for epoch in (1, 2, 3):
        folder.metrics.append({"epoch": epoch, "iterations": 10 * epoch})
    with (folder.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 4, "itera')

    assert [line["epoch"] for line in folder.metrics.read()] == [1, 2, 3]
    folder.metrics.keep(2, iterations_done=20)

    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    folder.metrics.append({"epoch": 3, "iterations": 30})
    assert [line["epoch"] for line in folder.metrics.read()] == [1, 2, 3]


def test_a_network_is_checked_before_it_is_built():
    check_network(make_plan())
    with pytest.raises(InputError, match=r"patch_size: .*got \(15, 16\)"):
        check_network(make_plan(patch_size=(15, 16)))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_weights_can_be_read_by_whoever_can_read_the_plan(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o640


def test_weights_of_an_unknown_name(tmp_path):
    with pytest.raises(UsageError, match=r"weights: expected one of exported, last, best, got 'first'"):
        ModelFolder(tmp_path, make_plan()).weights_path("first")


def test_another_folder_is_refused_with_the_path_of_the_model(folder):
    with pytest.raises(
        InputError, match=rf"plan\.json is a file, not a model folder\. Give its folder, {folder.path}"
    ):
        ModelFolder.open(folder.path / "plan.json")
    above = folder.path.parent
    with pytest.raises(InputError, match=rf"plan\.json is missing\. Choose a model in it: {folder.path}\.$"):
        ModelFolder.open(above)
    (above / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is a file, not a model folder\.$"):
        ModelFolder.open(above / "notes.txt")


def test_missing_files_and_broken_json_are_named(folder, tmp_path):
    with pytest.raises(InputError, match=r"x\.safetensors: cannot be read \(No such file or directory\)$"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.json: cannot be read \(No such file or directory\)$"):
        Plan.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json: expected JSON \(.*: line 1 column 2\)"):
        Plan.read(tmp_path / "x.json")


def test_a_model_takes_no_place_that_is_taken(folder, tmp_path):
    with pytest.raises(UsageError, match=r"model exists and is not an empty folder.* with --resume"):
        ModelFolder.require_new(folder.path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file\. Choose a folder to write\.$"):
        ModelFolder.require_new(tmp_path / "file")
    for name in ("empty", "new"):
        ModelFolder.require_new(tmp_path / name)
        (tmp_path / "empty").mkdir(exist_ok=True)


def test_weights_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    write_tensors({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read .*Permission denied"):
        read_tensors(tmp_path / "model.safetensors")
