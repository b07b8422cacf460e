"""A data set of one case is trained on as a whole."""

import pytest

import scanseg
from scanseg.errors import InputError, ScansegError
from tests.factories import write_disks

SETTINGS = {"device": "cpu", "epochs": 1, "settings": ["training.iterations_per_epoch=1"], "num_workers": 0}


@pytest.fixture
def one_case(tmp_path):
    return write_disks(tmp_path / "disks", numbers=[0])


def test_all_cases_are_one(one_case, tmp_path):
    result = scanseg.train(one_case, tmp_path / "model", recipe="plain-unet", fold="all", **SETTINGS)
    assert result.mean_dice is None
    assert result.warnings == ()
    again = scanseg.train(
        tmp_path / "model" / "plan.json", tmp_path / "again", fold="all", store=tmp_path / "s", **SETTINGS
    )
    assert again.epochs_done == 1


@pytest.mark.parametrize("fold", [None, 0])
def test_a_fold_is_refused_with_the_way_out(one_case, tmp_path, fold):
    message = r"expected at least 2 cases for training and validation, got 1\. .*--fold all"
    with pytest.raises(ScansegError, match=message):
        scanseg.train(one_case, tmp_path / "model", recipe="plain-unet", fold=fold, **SETTINGS)


def test_a_cross_validation_is_refused(one_case, tmp_path):
    with pytest.raises(InputError, match=r"expected at least 2 cases .*--fold all"):
        scanseg.cross_validate(one_case, tmp_path / "folds", recipes=["plain-unet"], devices=["cpu"])


def test_a_preprocessed_case_without_folds(one_case, tmp_path):
    folder = scanseg.preprocess(one_case, store=tmp_path / "stores", recipe="plain-unet", num_workers=0)
    assert (folder / "store.json").is_file()


def test_warnings_reach_the_result(tmp_path):
    folder = write_disks(tmp_path / "disks", numbers=range(3))
    (folder / "imagesTr" / "notes.txt").touch()
    updates = []
    result = scanseg.train(
        folder, tmp_path / "model", recipe="plain-unet", fold="all", progress=updates.append, **SETTINGS
    )
    (warning,) = result.warnings
    assert warning.startswith("imagesTr: 1 file left out that does not end in .png: notes.txt")
    assert {each for update in updates for each in update.warnings} == {warning}
    plan = tmp_path / "model" / "plan.json"
    result = scanseg.train(plan, tmp_path / "other", fold=0, store=tmp_path / "scanseg-stores", **SETTINGS)
    assert result.warnings == (warning,)
