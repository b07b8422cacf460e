"""Replacement of the network of a plan."""

import pytest

from scanseg.errors import UsageError
from scanseg.models import check_network
from scanseg.planning import replace_network
from scanseg.planning.recipes import plan_recipe as make_plan

from .test_recipes import CUBES, dataset, fingerprint

BASELINES = ("residual-unet", "plain-unet", "dynunet", "segresnet", "unetr", "swin-unetr")


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("recipe", ["msvm-unet", "xlstm-unet", "xlstm-unet-2d"])
def test_only_the_network_is_replaced(recipe, kind):
    pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    plan = make_plan(CUBES, dataset(), recipe=recipe)

    other = replace_network(plan, kind)

    assert other.network.kind == kind
    check_network(other)
    same = plan.model_copy(update={"network": other.network, "sampling": other.sampling})
    assert other == same
    if plan.preprocessing.slice_size:
        assert other.sampling == plan.sampling


def test_stages_equal_those_of_the_recipe():
    volumes = fingerprint([(3.0, 0.8, 0.8)] * 30, [(30, 256, 256)] * 30)
    plans = {name: make_plan(volumes, dataset(), recipe=name) for name in ("xlstm-unet", "plain-unet")}

    assert replace_network(plans["xlstm-unet"], "plain-unet").network == plans["plain-unet"].network


def test_unsuitable_and_unknown_networks_are_refused():
    plan = make_plan(CUBES, dataset(), recipe="xlstm-unet")
    with pytest.raises(UsageError, match="msvm-unet: expected slices, got patches"):
        replace_network(plan, "msvm-unet")
    with pytest.raises(UsageError, match="'u-net' is unknown"):
        replace_network(plan, "u-net")
