"""Experiments that are resumed after a stop, a changed file or a changed data set."""

import json
import shutil

import pytest

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.experiments import ComparisonOptions, run_comparison
from scanseg.experiments import comparison as comparison_module
from scanseg.experiments import crossval as crossval_module
from scanseg.models import ModelFolder
from scanseg.runtime import RunContext
from scanseg.specs import ComparisonSpec
from tests.factories import write_folds

from .conftest import SETTINGS

CONTEXT = RunContext(num_workers=0)
OPTIONS = {"settings": SETTINGS, "num_workers": 0, "devices": ["cpu"]}


class StoppedError(Exception):
    """Stands for a killed process."""


def stop(*arguments, **options):
    raise StoppedError


def spec_of(*arms, **changes):
    content = {
        "title": "t",
        "question": "q",
        "recipe": "xlstm-unet",
        "settings": (*SETTINGS, "training.epochs=1"),
        "arms": [{"name": name, "settings": list(settings)} for name, settings in arms],
        "seeds": (0,),
    }
    return ComparisonSpec(**content | changes)


def compare(spec, dataset, output, *, resume=False, **options):
    options = ComparisonOptions(devices=("cpu",), resume=resume, **options)
    return run_comparison(spec, dataset, output, options, context=CONTEXT)


def test_a_killed_cross_validation_keeps_its_initial_weights(dataset, tmp_path, monkeypatch):
    first, study = tmp_path / "first", tmp_path / "study"
    scanseg.train(dataset, first, settings=SETTINGS, device="cpu", num_workers=0, epochs=1)
    monkeypatch.setattr(crossval_module, "run_jobs", stop)
    with pytest.raises(StoppedError):
        scanseg.cross_validate(dataset, study, initial_weights=first, num_workers=0, devices=["cpu"])
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"have .*first initial weights, not .*other"):
        scanseg.cross_validate(
            dataset, study, initial_weights=tmp_path / "other", resume=True, num_workers=0, devices=["cpu"]
        )
    scanseg.cross_validate(dataset, study, resume=True, num_workers=0, devices=["cpu"])
    for fold in range(2):
        assert ModelFolder.open(study / f"fold_{fold}").read_run().initial_weights == str(first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("база", "другая"), ("w=1", "w=-1"), ("A+B", "A-B"), ("stores", "Stores!"), ("?", "!")],
)
def test_arms_with_similar_names_have_their_own_folders(dataset, tmp_path, first, second):
    spec = spec_of((first, []), (second, ["network.sequence_block=none"]))
    record = compare(spec, dataset, tmp_path / "out", prepare_only=True)
    assert len(record.missing) == 2
    blocks = [
        json.loads(path.read_text())["network"]["sequence_block"]
        for path in sorted((tmp_path / "out").glob("*/plan.json"))
    ]
    assert sorted(blocks) == ["none", "vil"]


def test_a_killed_comparison_is_not_resumed_with_other_arms(dataset, tmp_path, monkeypatch):
    arms = [("none", []), ("lr", ["training.optimizer.lr=0.001"])]
    monkeypatch.setattr(comparison_module, "prepare_store", stop)
    with pytest.raises(StoppedError):
        compare(spec_of(*arms), dataset, tmp_path / "out")
    monkeypatch.undo()
    other = spec_of(arms[0], ("lr", ["training.optimizer.lr=0.5"]))
    with pytest.raises(UsageError, match=r"holds a comparison where arms"):
        compare(other, dataset, tmp_path / "out", resume=True)
    compare(spec_of(*arms), dataset, tmp_path / "out", resume=True, prepare_only=True)


def test_a_comparison_that_cannot_be_planned_leaves_the_folder_unused(dataset, tmp_path):
    wrong = spec_of(("none", []), ("lr", ["training.optimizer.lr=high"]))
    with pytest.raises(UsageError, match="lr"):
        compare(wrong, dataset, tmp_path / "out")
    compare(spec_of(("none", []), ("other", [])), dataset, tmp_path / "out", prepare_only=True)


def test_a_comparison_does_not_mix_old_and_new_folds(dataset, tmp_path):
    spec, output = spec_of(("none", []), ("other", [])), tmp_path / "out"
    compare(spec, dataset, output)
    write_folds(dataset, ((2, 3), (0, 1)), ((0, 1), (2, 3)))
    compare(spec, dataset, output, resume=True)  # all trainings have the same earlier folds
    shutil.rmtree(output / "other" / "seed_0_fold_0")
    with pytest.raises(
        InputError, match="none, seed 0, fold 0: trained on other folds than the data set has now"
    ):
        compare(spec, dataset, output, resume=True)


def test_a_cross_validation_does_not_mix_old_and_new_folds(dataset, tmp_path):
    study = tmp_path / "study"
    scanseg.cross_validate(dataset, study, **OPTIONS)
    write_folds(dataset, ((2, 3), (0, 1)), ((0, 1), (2, 3)))
    shutil.rmtree(study / "fold_1")
    with pytest.raises(InputError, match="fold 0: trained on other folds than the data set has now"):
        scanseg.cross_validate(dataset, study, resume=True, **OPTIONS)
