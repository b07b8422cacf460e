"""Behaviour that all networks of the table share."""

import pytest
import torch

from scanseg.errors import InputError
from scanseg.networks import NETWORKS, build_network
from scanseg.specs.plan.network import (
    DynUNetSpec,
    MSVMUNetSpec,
    PlainUNetSpec,
    ResidualUNetSpec,
    SegResNetSpec,
    SwinUNETRSpec,
    UNETRSpec,
    XLSTMUNetSpec,
)

STAGES_2D = {
    "features": (4, 8, 12, 16),
    "kernel_sizes": ((3, 3),) * 4,
    "strides": ((1, 1), (2, 2), (2, 2), (2, 2)),
}
STAGES_3D = {
    "features": (4, 8, 12, 16),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
}
PATCHES = {2: (64, 64), 3: (16, 32, 32)}
OTHER_SIZES = {2: (64, 96), 3: (16, 48, 32)}
SWIN_PATCHES = {2: (64, 64), 3: (32, 32, 64)}  # its stride is 32 on every axis

SPECS = {
    "msvm": MSVMUNetSpec(dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), decoder_depth=1),
    "xlstm-bot-2d": XLSTMUNetSpec(variant="bot", **STAGES_2D),
    "xlstm-enc-2d": XLSTMUNetSpec(variant="enc", **STAGES_2D),
    "xlstm-bot-3d": XLSTMUNetSpec(variant="bot", **STAGES_3D),
    "xlstm-enc-3d": XLSTMUNetSpec(variant="enc", **STAGES_3D),
    "xlstm-mamba": XLSTMUNetSpec(sequence_block="mamba", **STAGES_2D),
    "residual-2d": ResidualUNetSpec(
        num_blocks_encoder=(1, 2, 2, 1), num_convs_decoder=(1, 1, 1), **STAGES_2D
    ),
    "residual-3d": ResidualUNetSpec(
        num_blocks_encoder=(1, 2, 2, 1), num_convs_decoder=(1, 1, 1), **STAGES_3D
    ),
    "plain-2d": PlainUNetSpec(num_convs_encoder=(2, 2, 2, 2), num_convs_decoder=(2, 2, 2), **STAGES_2D),
    "plain-3d": PlainUNetSpec(num_convs_encoder=(2, 2, 2, 2), num_convs_decoder=(2, 2, 2), **STAGES_3D),
    "dynunet-2d": DynUNetSpec(**STAGES_2D),
    "dynunet-3d": DynUNetSpec(residual_blocks=True, **STAGES_3D),
    "segresnet-2d": SegResNetSpec(num_axes=2, features=8),
    "segresnet-3d": SegResNetSpec(num_axes=3, features=8),
    "unetr-2d": UNETRSpec(num_axes=2, features=4, hidden_size=24, mlp_dim=32, num_heads=2),
    "unetr-3d": UNETRSpec(num_axes=3, features=4, hidden_size=24, mlp_dim=32, num_heads=2),
    "swin-unetr-2d": SwinUNETRSpec(num_axes=2, features=12, version2=True),
    "swin-unetr-3d": SwinUNETRSpec(num_axes=3, features=12, window_size=4),
}
BASELINES = ("dynunet", "segresnet", "unetr", "swin-unetr")


def patch_of(spec):
    return (SWIN_PATCHES if spec.kind == "swin-unetr" else PATCHES)[spec.num_axes]


def other_size(spec):
    return (
        {2: (64, 96), 3: (32, 64, 64)}[spec.num_axes]
        if spec.kind == "swin-unetr"
        else OTHER_SIZES[spec.num_axes]
    )


def built(name, *, in_channels=3, num_classes=4):
    torch.manual_seed(0)
    spec = SPECS[name]
    return build_network(spec, in_channels=in_channels, num_classes=num_classes, patch_size=patch_of(spec))


def image(name, *, size=None, channels=3, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size or patch_of(SPECS[name])), generator=generator)


SUPERVISED = [
    name for name, spec in SPECS.items() if NETWORKS[spec.kind].deep_supervision and spec.kind != "msvm-unet"
]
"""Networks with deep supervision, except MSVM-UNet, which has tests of its own."""
supervised = pytest.mark.parametrize("name", SUPERVISED, indirect=True)


@pytest.fixture(params=SPECS)
def name(request):
    if SPECS[request.param].kind in BASELINES:
        pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    return request.param


def test_the_table_is_covered():
    assert {spec.kind for spec in SPECS.values()} == set(NETWORKS)
    for kind, entry in NETWORKS.items():
        assert {spec.num_axes for spec in SPECS.values() if spec.kind == kind} == set(entry.num_axes)


@torch.no_grad()
def test_logits_have_the_size_of_the_image_and_are_the_same_each_time(name):
    network = built(name).eval()
    x = image(name)
    logits = network(x)
    assert logits.shape == (2, 4, *x.shape[2:])
    assert logits.isfinite().all()
    assert torch.equal(network(x), logits)
    assert torch.equal(built(name).eval()(x), logits)


def test_training_gives_a_finite_gradient_to_every_parameter(name):
    network = built(name).train()
    result = network(image(name))
    outputs = result if isinstance(result, tuple) else (result,)
    assert (len(outputs) > 1) == getattr(SPECS[name], "deep_supervision", False)
    sum(output.square().mean() for output in outputs).backward()
    missing = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@supervised
def test_deep_supervision_is_highest_resolution_first_and_begins_with_the_plain_result(name):
    network, x = built(name), image(name)
    with torch.no_grad():
        outputs = network.train()(x)
        sizes = [tuple(output.shape[2:]) for output in outputs]
        assert len(sizes) == 3
        assert sizes[0] == tuple(x.shape[2:])
        assert sizes == sorted(sizes, reverse=True)
        assert torch.equal(network.eval()(x), outputs[0])
        assert all(torch.equal(*pair) for pair in zip(network(x, every_stage=True), outputs, strict=True))
        network.train().deep_supervision = False
        assert torch.equal(network(x), outputs[0])


@supervised
def test_a_network_without_deep_supervision_has_one_head_and_one_result(name):
    spec = SPECS[name].model_copy(update={"deep_supervision": False})
    network = build_network(spec, in_channels=1, num_classes=2, patch_size=patch_of(spec)).train()
    result = network(image(name, channels=1, batch=1))
    if spec.kind not in BASELINES:
        assert len(network.decoder.heads) == 1
    result.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_state_dict_round_trip(name, tmp_path):
    from safetensors.torch import load_file, save_file

    network = built(name).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(7)
    other = build_network(SPECS[name], in_channels=3, num_classes=4, patch_size=patch_of(SPECS[name])).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(other(image(name)), network(image(name)))


# The tokens of UNETR have learned positions: see `test_a_size_other_than_the_patch_is_refused_by_unetr`.
@pytest.mark.parametrize(
    "name", [name for name, spec in SPECS.items() if spec.kind != "unetr"], indirect=True
)
def test_the_size_may_differ_from_the_patch(name):
    network = built(name).eval()
    size = other_size(SPECS[name])
    with torch.no_grad():
        assert network(image(name, size=size)).shape == (2, 4, *size)


def test_the_wrong_rank_is_refused(name):
    axes = SPECS[name].num_axes
    with pytest.raises(InputError, match=rf"got {axes + 1} axes.*Give {axes} spatial axes"):
        built(name)(image(name)[0])


def test_the_wrong_channel_count_is_refused(name):
    with pytest.raises(InputError, match=r"expected .*3 channel\(s\), got 2"):
        built(name)(image(name, channels=2))


def test_a_size_that_the_strides_do_not_divide_is_refused_with_the_nearest(name):
    network = built(name)
    patch = patch_of(SPECS[name])
    size = (*patch[:-1], patch[-1] + 1)
    with pytest.raises(InputError) as raised:
        network(image(name, size=size))
    assert "image size: expected multiples of the network's total stride" in str(raised.value)
    assert f"got {size}. The nearest valid size is {patch}" in str(raised.value)


def test_a_patch_that_the_strides_do_not_divide_is_refused_with_the_nearest(name):
    spec = SPECS[name]
    patch = patch_of(spec)
    wrong = (patch[0] - 1, *patch[1:])
    with pytest.raises(InputError) as raised:
        build_network(spec, in_channels=1, num_classes=2, patch_size=wrong)
    assert "patch_size: expected multiples of the network's total stride" in str(raised.value)
    assert f"got {wrong}. The nearest valid size is {patch}" in str(raised.value)


def test_counts_below_one_are_refused(name):
    with pytest.raises(InputError, match="at least 1, got in_channels 1 and num_classes 0"):
        build_network(SPECS[name], in_channels=1, num_classes=0, patch_size=patch_of(SPECS[name]))


def test_bfloat16_autocast_is_finite_forward_and_backward(name):
    network = built(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(image(name))
    outputs = result if isinstance(result, tuple) else (result,)
    assert all(output.isfinite().all() for output in outputs)
    sum(output.float().square().mean() for output in outputs).backward()
    if SPECS[name].kind in BASELINES and SPECS[name].num_axes == 3:
        return  # torch's 3D convolution in bfloat16 on the CPU leaves parts of small weight gradients unwritten
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


# The networks with sequence layers are compiled in `test_compilation.py`. Raised inside dynamo, in torch 2.13.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["plain-2d", "residual-2d"])
def test_compiles_as_one_graph(name):
    torch.compiler.reset()
    network = built(name).eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    x = image(name, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))
    network.train()
    result = compiled(x)
    (result[0] if isinstance(result, tuple) else result).sum().backward()
