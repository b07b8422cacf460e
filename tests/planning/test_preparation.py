"""The sources of a training, and the plans made from them."""

from pathlib import Path

import pytest

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder
from scanseg.planning import PlanRequest, TrainingSource, find_known_splits, find_plan, prepare_store
from scanseg.runtime import RunContext
from tests.factories import write_noisy_boxes

CONTEXT = RunContext(num_workers=0)


def test_a_description_is_refused_with_the_folder_to_give():
    source = Path("data/acdc/dataset.json")
    message = r"describes a data set\. Give its folder, data/acdc, or a plan file"
    for function in (scanseg.train, scanseg.cross_validate):
        with pytest.raises(UsageError, match=message):
            function(source, "output")
    with pytest.raises(UsageError, match=message):
        scanseg.preprocess(source, store="stores")


def test_a_model_folder_is_refused_with_the_plan_to_give(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    message = r"is a model folder, not a data set\. Give its plan, \S*plan.json: with -o"
    for function in (scanseg.train, scanseg.cross_validate):
        with pytest.raises(UsageError, match=message):
            function(tmp_path, tmp_path / "output")
    with pytest.raises(UsageError, match=message):
        scanseg.preprocess(tmp_path, store=tmp_path / "stores")


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such file or folder\. Give a data set's folder"):
        scanseg.train(tmp_path / "nowhere", tmp_path / "output")


def test_a_plan_knows_the_spacings_of_its_data_set(tmp_path):
    first = write_noisy_boxes(tmp_path / "first", [(2.0, 1.0, 1.0), (2.0, 1.5, 1.0)])
    second = write_noisy_boxes(tmp_path / "second", [(4.0, 0.5, 0.5), (3.0, 0.5, 0.75)])

    def plan(folder, **request):
        return find_plan(TrainingSource(folder, dataset=folder), PlanRequest(**request), context=CONTEXT)

    model = ModelFolder.create(tmp_path / "model", plan(first, recipe="plain-unet"))

    assert model.plan.spacing_range == ((2.0, 1.0, 1.0), (2.0, 1.5, 1.0))
    assert plan(second, like=model.path).spacing_range == ((3.0, 0.5, 0.5), (4.0, 0.5, 0.75))


def test_a_plan_finds_its_data_set_and_else_its_store(tmp_path):
    folder = write_noisy_boxes(tmp_path / "raw", [(2.0, 1.0, 1.0), (2.0, 1.5, 1.0)])
    plan = find_plan(
        TrainingSource(folder, dataset=folder), PlanRequest(recipe="plain-unet"), context=CONTEXT
    )
    source = TrainingSource(tmp_path / "plan.json", plan=plan)
    assert source.raw_folder() == folder.resolve()
    assert find_known_splits(source) is not None
    made = prepare_store(plan, source, tmp_path / "stores", context=CONTEXT)

    folder.rename(tmp_path / "moved")

    assert source.raw_folder() is None
    assert find_known_splits(source) is None
    opened = prepare_store(plan, source, tmp_path / "stores", context=CONTEXT)
    assert (opened.plan, opened.store.folder) == (plan, made.store.folder)
    with pytest.raises(InputError, match=r"raw: the data set of the plan is missing, and so is its store"):
        prepare_store(plan, source, tmp_path / "elsewhere", context=CONTEXT)
