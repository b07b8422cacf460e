import pytest
import torch

from scanseg.errors import InputError
from scanseg.layers import SS2D, VSSBlock
from scanseg.layers.stochastic_depth import StochasticDepth
from scanseg.networks import MSVMUNet

SMALLEST = {"dims": (4, 8, 12, 16), "depths": (1, 1, 1, 1), "decoder_depth": 1}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("depths", "millions"), [(MSVMUNet.TINY, 35.93), (MSVMUNet.SMALL, 54.69)], ids=["tiny", "small"]
)
def test_parameter_counts_are_those_of_the_paper(depths, millions):
    with torch.device("meta"):
        network = MSVMUNet(3, 9, depths=depths)
    assert round(count(network) / 1e6, 2) == millions


def test_one_channel_is_repeated_to_three():
    network = MSVMUNet(1, 2, **SMALLEST).eval()
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), network(x.repeat(1, 3, 1, 1)))


def test_other_channel_counts_stay_unchanged():
    network = MSVMUNet(4, 2, **SMALLEST).eval()
    assert network(torch.randn(1, 4, 32, 64)).shape == (1, 2, 32, 64)
    with pytest.raises(InputError, match="expected 4 channel"):
        network(torch.randn(1, 1, 32, 32))


@pytest.mark.parametrize("kernels", [(), (1, 3, 5), (3, 5, 7), (1, 3, 5, 7)])
def test_ffn_kernels_are_in_the_decoder_alone(kernels):
    network = MSVMUNet(3, 2, ffn_kernels=kernels, **SMALLEST)
    sizes = {name.split(".")[0]: None for name, _ in network.named_parameters() if "multi_scale" in name}
    assert set(sizes) == ({"decoder"} if kernels else set())
    plain = count(MSVMUNet(3, 2, ffn_kernels=(), **SMALLEST))
    hidden = 4 * sum(SMALLEST["dims"][:3])
    assert count(network) - plain == hidden * sum(size**2 for size in kernels)


def test_deep_supervision_returns_the_stages_while_training():
    network = MSVMUNet(3, 2, deep_supervision=True, **SMALLEST)
    x = torch.randn(2, 3, 64, 32)
    outputs = network(x)
    assert [tuple(logits.shape[2:]) for logits in outputs] == [(64, 32), (16, 8), (8, 4), (4, 2)]
    sum(logits.square().mean() for logits in outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(x), network(x, every_stage=True)[0])
    network.replace_classes(5)
    assert {logits.shape[1] for logits in network(x, every_stage=True)} == {5}


def test_deep_supervision_adds_heads_alone():
    usual, deep = MSVMUNet(3, 2, **SMALLEST), MSVMUNet(3, 2, deep_supervision=True, **SMALLEST)
    added = set(deep.state_dict()) - set(usual.state_dict())
    assert added == {
        f"decoder.stage_heads.{stage}.{name}" for stage in range(3) for name in ("weight", "bias")
    }


@pytest.mark.parametrize("upsampling", ["lkpe", "patch-expand", "transposed-convolution", "bilinear"])
def test_every_way_of_upsampling_trains(upsampling):
    network = MSVMUNet(3, 2, upsampling=upsampling, **SMALLEST)
    logits = network(torch.randn(2, 3, 32, 64))
    assert logits.shape == (2, 2, 32, 64)
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_ways_of_upsampling_differ_in_size():
    sizes = {
        count(MSVMUNet(3, 2, upsampling=upsampling, **SMALLEST))
        for upsampling in ("lkpe", "patch-expand", "transposed-convolution", "bilinear")
    }
    assert len(sizes) == 4


def test_sequence_block_none_removes_the_scans():
    network = MSVMUNet(3, 2, sequence_block="none", **SMALLEST)
    assert not any(isinstance(module, SS2D) for module in network.modules())
    assert sum(isinstance(module, VSSBlock) for module in network.modules()) == 7
    network(torch.randn(1, 3, 32, 64)).sum().backward()


def test_state_size_is_that_of_every_scan():
    network = MSVMUNet(3, 2, state_size=3, **SMALLEST)
    assert {module.A_log.shape[-1] for module in network.modules() if isinstance(module, SS2D)} == {3}
    assert network(torch.randn(1, 3, 32, 64)).isfinite().all()


def test_a_single_deepest_pixel_is_valid_for_prediction_but_not_for_batch_norm():
    network = MSVMUNet(3, 2, **SMALLEST)
    x = torch.randn(1, 3, 32, 32)
    assert network.eval()(x).shape == (1, 2, 32, 32)
    with pytest.raises(InputError, match=r"single voxel.*nearest valid size is \(64, 32\)"):
        network.train()(x)
    assert network(torch.cat([x, x])).shape == (2, 2, 32, 32)


def test_stochastic_depth_rises_along_the_encoder_and_falls_along_the_decoder():
    network = MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 2, 1, 1), drop_path=0.2)
    encoder, decoder = (
        [module.rate for module in part.modules() if isinstance(module, StochasticDepth)]
        for part in (network.encoder, network.decoder)
    )
    assert encoder == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert decoder == pytest.approx([0.2, 0.16, 0.12, 0.08, 0.04, 0.0])


def test_invalid_depths_and_kernels_are_refused():
    with pytest.raises(InputError, match="four stages"):
        MSVMUNet(3, 2, depths=(2, 2, 2))
    with pytest.raises(InputError, match="ffn_kernels: expected odd sizes"):
        MSVMUNet(3, 2, ffn_kernels=(2,))
