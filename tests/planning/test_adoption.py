import pytest

from scanseg.errors import InputError
from scanseg.planning.adoption import adopt_plan

from .test_memory import plan_of


def adopted(*, labels=3, num_axes=3):
    plan = plan_of("xlstm-unet", settings=('training.loss.label_weights={"label 1": 2.0}',))
    other = plan_of("plain-unet", num_labels=labels).dataset
    return plan, adopt_plan(plan, other, num_axes=num_axes, source="models/first", dataset_path="/data/set")


def test_adopted_plan_has_labels_and_path_of_the_data_set():
    plan, ours = adopted()
    assert len(ours.dataset.foreground) == 3
    assert ours.dataset_path == "/data/set"
    assert ours.training.loss.label_weights == {}
    assert (ours.network, ours.preprocessing) == (plan.network, plan.preprocessing)


def test_other_axes_are_refused():
    with pytest.raises(
        InputError, match="set does not fit the plan of models/first: expected images of 3 axes, got 2"
    ):
        adopted(num_axes=2)
