"""What a training is told to begin with."""

from pathlib import Path

import pytest

from scanseg.errors import UsageError
from scanseg.models import ModelFolder
from scanseg.planning.preparation import known_splits, plan_of, store_of
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from tests.factories import write_noisy_boxes


def test_description_given_for_its_data_set():
    source = Path("data/acdc/dataset.json")
    with pytest.raises(
        UsageError, match=r"describes a data set; give its folder, data/acdc, or a plan's file"
    ):
        plan_of(
            source,
            recipe=None,
            like=None,
            settings=(),
            context=RunContext(num_workers=0, progress=lambda progress: None),
        )
    with pytest.raises(UsageError, match=r"describes a data set"):
        known_splits(source)


def test_model_given_for_a_data_set(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"is a model's folder, not a data set's; give its plan, \S*plan.json: with -o"
    ):
        plan_of(
            tmp_path,
            recipe=None,
            like=None,
            settings=(),
            context=RunContext(num_workers=0, progress=lambda progress: None),
        )
    with pytest.raises(UsageError, match=r"is a model's folder"):
        store_of(
            Plan.model_construct(),
            tmp_path,
            tmp_path,
            context=RunContext(num_workers=0, progress=lambda progress: None),
        )


def test_a_plan_knows_the_spacings_of_its_data_set(tmp_path):
    first = write_noisy_boxes(tmp_path / "first", [(2.0, 1.0, 1.0), (2.0, 1.5, 1.0)])
    second = write_noisy_boxes(tmp_path / "second", [(4.0, 0.5, 0.5), (3.0, 0.5, 0.75)])

    def plan(source, **given):
        told = {"recipe": None, "like": None} | given
        return plan_of(
            source, settings=(), context=RunContext(num_workers=0, progress=lambda progress: None), **told
        )

    model = ModelFolder.create(tmp_path / "model", plan(first, recipe="plain-unet"))

    assert model.plan.spacing_range == ((2.0, 1.0, 1.0), (2.0, 1.5, 1.0))
    assert plan(second, like=model.path).spacing_range == ((3.0, 0.5, 0.5), (4.0, 0.5, 0.75))
