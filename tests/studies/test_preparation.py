"""What a training is told to begin with."""

from pathlib import Path

import pytest

from scanseg.errors import UsageError
from scanseg.specs import Plan
from scanseg.studies.preparation import known_splits, plan_of, store_of


def test_description_given_for_its_data_set():
    source = Path("data/acdc/dataset.json")
    with pytest.raises(
        UsageError, match=r"describes a data set; give its folder, data/acdc, or a plan's file"
    ):
        plan_of(source, recipe=None, like=None, settings=(), num_workers=0, listen=lambda progress: None)
    with pytest.raises(UsageError, match=r"describes a data set"):
        known_splits(source)


def test_model_given_for_a_data_set(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"is a model's folder, not a data set's; give its plan, \S*plan.json: with -o"
    ):
        plan_of(tmp_path, recipe=None, like=None, settings=(), num_workers=0, listen=lambda progress: None)
    with pytest.raises(UsageError, match=r"is a model's folder"):
        store_of(Plan.model_construct(), tmp_path, tmp_path, num_workers=0, listen=lambda progress: None)
