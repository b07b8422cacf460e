import torch

from scanseg.networks import MSVMUNet, XLSTMUNet, split_weight_decay


def _names(network):
    decay, no_decay = split_weight_decay(network)
    by_identity = {id(parameter): name for name, parameter in network.named_parameters()}
    return {by_identity[id(parameter)] for parameter in decay}, {
        by_identity[id(parameter)] for parameter in no_decay
    }


def test_every_parameter_is_in_one_group():
    network = MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1))
    decay, no_decay = _names(network)
    assert decay.isdisjoint(no_decay)
    assert decay | no_decay == {name for name, _ in network.named_parameters()}


def test_decays_skips_norms_and_biases_of_scans_take_none():
    _, no_decay = _names(MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1)))
    block = "encoder.stages.0.0"
    for name in ("scan.A_log", "scan.D_skip", "scan.dt_bias", "scan_norm.weight", "ffn.fc1.bias"):
        assert f"{block}.{name}" in no_decay
    assert f"{block}.scan.x_proj_weight" not in no_decay
    assert f"{block}.scan.in_proj.weight" not in no_decay


def test_mamba_and_vil_parameters():
    for block, exempt in (
        ("mamba", {"A_log", "D_skip", "dt_bias", "norm.weight"}),
        ("vil", {"norm.weight", "learnable_skip", "cell.outnorm.weight", "cell.fgate.bias"}),
    ):
        network = XLSTMUNet(
            1,
            2,
            patch_size=(16, 16),
            strides=((1, 1), (2, 2)),
            features=(4, 8),
            variant="bot",
            sequence_block=block,
        )
        decay, no_decay = _names(network)
        assert {f"bottleneck.block.{name}" for name in exempt} <= no_decay
        assert not any("norm" in name for name in decay)


def test_frozen_parameters_are_left_out():
    layer = torch.nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    decay, no_decay = split_weight_decay(layer)
    assert decay == []
    assert no_decay == [layer.bias]
