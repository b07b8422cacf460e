import pytest
import torch
from torch import nn

from scanseg.errors import InputError
from scanseg.layers import BasicBlockD, MambaBlock, SequenceLayer, ViLBlock
from scanseg.networks import XLSTMUNet
from scanseg.networks.sequence_plan import stage_roles

STRIDES = ((1, 1), (2, 2), (2, 2), (2, 2), (2, 2))
FEATURES = (4, 4, 8, 8, 16)


def built(**changes):
    torch.manual_seed(0)
    arguments = {"patch_size": (96, 96), "strides": STRIDES, "features": FEATURES, **changes}
    return XLSTMUNet(1, 2, **arguments)


def sequence_layers(network):
    return [module for module in network.modules() if isinstance(module, SequenceLayer)]


@pytest.mark.parametrize(
    ("num_stages", "num_axes", "expected"),
    [(7, 2, {2, 4, 6}), (8, 2, {3, 5, 7}), (5, 2, {2, 4}), (4, 2, {3}), (6, 3, {3, 4, 5}), (3, 3, set())],
)
def test_sequence_layers_follow_the_stages_of_the_paper(num_stages, num_axes, expected):
    roles = stage_roles(num_stages=num_stages, num_axes=num_axes)
    assert {stage for stage, role in enumerate(roles) if role == "sequence"} == expected
    convolutions = {stage for stage, role in enumerate(roles) if role == "convolution"}
    assert convolutions == ({1} if num_axes == 2 else set(range(min(3, num_stages))))


@pytest.mark.parametrize(("num_axes", "limit"), [(2, 512), (3, 320)])
def test_features_double_up_to_a_limit_by_default(num_axes, limit):
    strides = [(1,) * num_axes] + [(2,) * num_axes] * 5
    with torch.device("meta"):
        network = XLSTMUNet(1, 2, patch_size=(64,) * num_axes, strides=strides, variant="bot")
    features = [stage[0].conv1.out_channels for stage in network.encoder.stages]
    assert features == [min(32 * 2**stage, limit) for stage in range(6)]


def test_blocks_halve_in_the_second_half():
    network = built(num_blocks_encoder=3, num_blocks_decoder=4)
    assert len(network.encoder.stem) == 3
    assert [len(stage) for stage in network.encoder.stages] == [3, 3, 3, 1, 1]
    assert [len(stage) for stage in network.decoder.stages] == [4, 4, 4, 1]


def test_bot_has_one_sequence_layer_whose_tokens_are_always_voxels():
    network = built(variant="bot", patch_size=(32, 32))
    (layer,) = sequence_layers(network)
    assert layer is network.bottleneck
    assert layer.tokens == "voxel"


def test_small_maps_have_channels_as_tokens():
    network = built(patch_size=(64, 64))
    assert [layer.tokens for layer in sequence_layers(network)] == ["voxel", "channel"]
    assert network.fixed_map_sizes == {4: (4, 4)}
    assert [layer.tokens for layer in sequence_layers(built())] == ["voxel", "voxel"]


def test_channel_tokens_fix_the_size_and_the_error_names_the_stage():
    network = built(patch_size=(64, 64))
    assert network(torch.randn(1, 1, 64, 64), every_stage=False).shape == (1, 2, 64, 64)
    with pytest.raises(InputError) as raised:
        network(torch.randn(1, 1, 64, 96))
    for part in ("image size: expected the patch_size (64, 64), got (64, 96)", "stage 4 (map (4, 4))"):
        assert part in str(raised.value)


def test_voxel_tokens_take_any_size():
    assert built().eval()(torch.randn(1, 1, 64, 32)).shape == (1, 2, 64, 32)


def test_a_single_voxel_at_the_deepest_stage_is_refused():
    network = built(variant="bot")
    with pytest.raises(InputError, match=r"single voxel.*nearest valid size is \(32, 16\)"):
        network(torch.randn(1, 1, 16, 16))


@pytest.mark.parametrize("variant", ["bot", "enc"])
@pytest.mark.parametrize(("block", "kind"), [("vil", ViLBlock), ("mamba", MambaBlock)])
def test_sequence_block_selects_the_block_over_tokens(variant, block, kind):
    network = built(variant=variant, sequence_block=block)
    layers = sequence_layers(network)
    assert len(layers) == (1 if variant == "bot" else 2)
    assert all(isinstance(layer.block, kind) for layer in layers)


def test_without_sequence_block_enc_has_residual_blocks_and_bot_none():
    enc, bot = (built(variant=variant, sequence_block="none") for variant in ("enc", "bot"))
    assert sequence_layers(enc) == sequence_layers(bot) == []
    kinds = [type(layer) for layer in enc.sequence_layers]
    assert kinds == [nn.Identity, BasicBlockD, BasicBlockD, nn.Identity, BasicBlockD]
    assert isinstance(bot.bottleneck, nn.Identity)
    assert enc.fixed_map_sizes == {}


def test_traversal_alternates_from_layer_to_layer():
    directions = {
        traversal: [layer.block.direction for layer in sequence_layers(built(traversal=traversal))]
        for traversal in ("forward", "backward", "alternate", "bidirectional")
    }
    assert directions == {
        "forward": ["forward", "forward"],
        "backward": ["backward", "backward"],
        "alternate": ["forward", "backward"],
        "bidirectional": ["bidirectional", "bidirectional"],
    }


def test_each_traversal_gives_another_result_from_the_same_weights():
    x = torch.randn(1, 1, 32, 32)
    results = []
    for traversal in ("forward", "backward", "alternate", "bidirectional"):
        network = built(patch_size=(96, 96), traversal=traversal).eval()
        network.load_state_dict(built().state_dict())
        with torch.no_grad():
            results.append(network(x))
    for index, result in enumerate(results):
        assert not any(torch.allclose(result, other) for other in results[:index])


@pytest.mark.parametrize(
    ("num_axes", "choice", "joins"), [(2, None, False), (2, True, True), (3, None, True), (3, False, False)]
)
def test_the_skip_of_full_resolution_is_joined_in_3d_only_by_default(num_axes, choice, joins):
    network = XLSTMUNet(
        1,
        2,
        patch_size=(16,) * num_axes,
        strides=((1,) * num_axes, (2,) * num_axes, (2,) * num_axes),
        features=(4, 8, 8),
        variant="bot",
        skip_full_resolution=choice,
    )
    assert network.decoder.stages[-1][0].conv1.in_channels == (8 if joins else 4)
    assert network.eval()(torch.randn(1, 1, *(16,) * num_axes)).shape == (1, 2, *(16,) * num_axes)


@pytest.mark.parametrize("as_shortcuts", [False, True])
def test_blocks_begin_as_shortcuts_if_set(as_shortcuts):
    network = built(sequence_block="none", zero_init_residual=as_shortcuts)
    blocks = [module for module in network.modules() if isinstance(module, BasicBlockD)]
    x = torch.randn(1, blocks[0].conv1.conv.in_channels, 6, 6).relu()
    with torch.no_grad():
        assert torch.allclose(blocks[0](x), x) == as_shortcuts
    assert len(blocks) > 4
    assert all((block.conv2.norm.weight == 0).all() == as_shortcuts for block in blocks)


def test_inconsistent_stages_are_refused():
    with pytest.raises(InputError, match="got 2, 5 and 5"):
        built(features=(4, 8))
    with pytest.raises(InputError, match="kernel_sizes: expected odd sizes"):
        built(kernel_sizes=((2, 2),) * 5)
    with pytest.raises(InputError, match="1 in the first stage"):
        built(strides=((2, 2),) * 5)
    with pytest.raises(InputError, match=r"patch_size: expected 2 axes as the network, got 3"):
        built(patch_size=(96, 96, 96))
