"""The option by which a person chooses the type of products."""

from typing import get_args

import pytest

from scanseg.cli.options import Precision
from scanseg.errors import UsageError
from scanseg.models import ModelFolder
from scanseg.runtime.device import Precision as KnownPrecision
from scanseg.specs import TrainingSpec


def test_the_option_names_what_a_plan_can_hold():
    assert get_args(Precision) == get_args(KnownPrecision)
    assert get_args(Precision) == get_args(TrainingSpec.model_fields["precision"].annotation)


def test_a_precision_is_put_into_the_plan_and_the_record(train, tmp_path):
    train(precision="bfloat16")
    folder = ModelFolder.open(tmp_path / "model")
    assert folder.plan.training.precision == "bfloat16"
    assert folder.read_run().sessions[0].precision == "bfloat16"


def test_float16_is_refused_where_it_is_not_computed(train):
    with pytest.raises(UsageError, match=r"float16 is not supported by cpu\. Choose bfloat16 or float32"):
        train(precision="float16")
