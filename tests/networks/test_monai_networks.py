"""MONAI's networks in the table: they are MONAI's, they can be stored and copied, and are missed politely."""

import copy
import sys

import pytest
import torch
from torch import nn

from scanseg.errors import InputError, UsageError
from scanseg.networks import build_network
from scanseg.specs import DynUNetSpec, SegResNetSpec, SwinUNETRSpec, UNETRSpec

pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')

STAGES = {
    "features": (4, 8, 12, 16),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
}


@pytest.mark.parametrize("residual", [False, True])
def test_dynunet_computes_what_monai_computes(residual):
    from monai.networks.nets import DynUNet

    ours = build_network(
        DynUNetSpec(residual_blocks=residual, **STAGES), in_channels=2, num_classes=3, patch_size=(8, 16, 16)
    )
    theirs = DynUNet(
        3,
        2,
        3,
        kernel_size=STAGES["kernel_sizes"],
        strides=STAGES["strides"],
        upsample_kernel_size=STAGES["strides"][1:],
        filters=STAGES["features"],
        deep_supervision=True,
        deep_supr_num=2,
        res_block=residual,
    )
    # MONAI names each layer a second time, inside the layers of its own pass.
    weights = ours.network.state_dict()
    assert set(weights) == {name for name in theirs.state_dict() if not name.startswith("skip_layers.")}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(weights[name])
        x = torch.randn(1, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
        stages, enlarged = ours.train()(x), theirs.train()(x).unbind(1)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]
    for stage, expected in zip(stages, enlarged, strict=True):
        torch.testing.assert_close(nn.functional.interpolate(stage, x.shape[2:]), expected)


def test_dynunet_can_be_copied_after_a_step():
    network = build_network(
        DynUNetSpec(**STAGES), in_channels=1, num_classes=2, patch_size=(8, 16, 16)
    ).train()
    x = torch.ones(1, 1, 8, 16, 16)
    network(x)[0].sum().backward()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network).eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    "spec",
    [
        DynUNetSpec(**STAGES),
        SegResNetSpec(num_axes=3),
        UNETRSpec(num_axes=3),
        SwinUNETRSpec(num_axes=3),
    ],
    ids=lambda spec: spec.kind,
)
def test_networks_are_built_without_memory_for_their_weights(spec):
    with torch.device("meta"):
        network = build_network(spec, in_channels=1, num_classes=2, patch_size=(32, 32, 64))
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_a_size_other_than_the_patch_is_refused_by_unetr():
    spec = UNETRSpec(num_axes=2, features=4, hidden_size=24, mlp_dim=32, num_heads=2)
    network = build_network(spec, in_channels=1, num_classes=2, patch_size=(32, 32))
    with pytest.raises(InputError, match=r"\(32, 48\) does not fit: UNETR .* the patch_size \(32, 32\)"):
        network(torch.zeros(1, 1, 32, 48))


@pytest.mark.parametrize("missing", ["monai.networks", "einops"])
def test_without_monai_the_message_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r'pip install "scanseg\[baselines\]"'):
        build_network(SegResNetSpec(num_axes=2), in_channels=1, num_classes=2, patch_size=(16, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNETRSpec(num_axes=2, hidden_size=100), "not divisible by num_heads 12"),
        (lambda: SegResNetSpec(num_axes=2, blocks_decoder=(1,)), "one stage less"),
        (lambda: SwinUNETRSpec(num_axes=2, num_heads=(5, 6, 12, 24)), "stage 0 has 48 features"),
        (
            lambda: DynUNetSpec(features=(4, 8), kernel_sizes=((3, 3),) * 2, strides=((1, 1), (2, 2))),
            "at least 3",
        ),
    ],
)
def test_descriptions_that_describe_no_network_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
