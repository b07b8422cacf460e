"""Networks in other people's code: default stages, encoder maps, frozen encoders, padding, 16-bit weights."""

import pytest
import torch

from scanseg.errors import InputError
from scanseg.networks import MSVMUNet, PlainUNet, ResidualUNet, XLSTMUNet

SMALL = {"features": (4, 8, 8), "spatial_dims": 2}
BLOCKS = {"num_blocks_encoder": (1, 1, 1)}
NETWORKS = {
    "plain": lambda **options: PlainUNet(1, 3, **SMALL, **options),
    "residual": lambda **options: ResidualUNet(1, 3, **SMALL, **BLOCKS, **options),
    "enc": lambda **options: XLSTMUNet(1, 3, **SMALL, **options),
    "bot": lambda **options: XLSTMUNet(1, 3, **SMALL, variant="bot", **options),
    "msvm": lambda **options: MSVMUNet(
        1, 3, dims=(8, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1, **options
    ),
}


@pytest.fixture(params=NETWORKS)
def build(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]


def image(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("network", [XLSTMUNet, PlainUNet, ResidualUNet])
def test_a_network_has_default_stages(network, spatial_dims):
    with torch.device("meta"):
        built = network(1, 3, spatial_dims=spatial_dims)
        assert built.total_stride == (32,) * spatial_dims
        maps = built.eval().features(torch.zeros(1, 1, *(64,) * spatial_dims))
    most = {2: 512, 3: 320}[spatial_dims]
    assert [each.shape[1] for each in maps] == [min(size, most) for size in (32, 64, 128, 256, 512, 1024)]
    assert [each.shape[-1] for each in maps] == [64, 32, 16, 8, 4, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"strides": ((1, 1), (2, 2), (2, 2)), "kernel_sizes": ((3, 3), (3, 3), (3, 3))},
        {"strides": 2, "kernel_sizes": 3, "spatial_dims": 2},
        {"strides": (1, 2, 2), "kernel_sizes": (3, 3, 3), "patch_size": None, "spatial_dims": 2},
        {"strides": (1, (2, 2), 2)},
    ],
)
def test_numbers_stand_for_all_axes_and_stages(options):
    network = XLSTMUNet(1, 3, features=(4, 8, 8), **options)
    torch.manual_seed(0)
    expected = {name: value.shape for name, value in XLSTMUNet(1, 3, **SMALL).state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == expected
    assert network.total_stride == (4, 4)


def test_wrong_numbers_of_axes_are_refused():
    with pytest.raises(InputError, match=r"spatial_dims: expected 2 or 3.*got no argument with axes\. Pass"):
        PlainUNet(1, 3)
    with pytest.raises(InputError, match="got 3 from spatial_dims, 2 from strides"):
        PlainUNet(1, 3, spatial_dims=3, strides=((1, 1), (2, 2)))
    with pytest.raises(InputError, match="got 4 from spatial_dims"):
        XLSTMUNet(1, 3, spatial_dims=4)


def test_without_patch_size_any_size_is_valid_though_maps_are_small():
    network = XLSTMUNet(1, 3, features=(4, 8, 64), spatial_dims=2).eval()
    with torch.no_grad():
        assert network(image(1, 1, 16, 16)).shape == (1, 3, 16, 16)
        assert network(image(1, 1, 8, 20)).shape == (1, 3, 8, 20)


@torch.no_grad()
def test_features_are_the_maps_that_the_decoder_reads(build):
    network = build().eval()
    x = image(2, 1, 64, 32)
    maps = network.features(x)
    strides = (4, 8, 16, 32) if isinstance(network, MSVMUNet) else (1, 2, 4)
    assert [tuple(each.shape[2:]) for each in maps] == [(64 // s, 32 // s) for s in strides]
    decoded = (
        network.decoder(maps) if isinstance(network, MSVMUNet) else network.decoder(maps, every_stage=False)
    )
    assert torch.equal(decoded, network(x))


def test_a_frozen_encoder_computes_the_same_features_after_a_step(build):
    network = build().train()
    network.freeze_encoder()
    x = image(2, 1, 64, 32)
    with torch.no_grad():
        before = [each.clone() for each in network.eval().features(x)]
        logits = network(x)
    optimizer = torch.optim.AdamW([each for each in network.parameters() if each.requires_grad], lr=0.1)
    output = network.train()(x)
    sum(each.square().mean() for each in (output if isinstance(output, tuple) else (output,))).backward()
    optimizer.step()
    with torch.no_grad():
        for each, expected in zip(network.eval().features(x), before, strict=True):
            assert torch.equal(each, expected)
        assert not torch.equal(network(x), logits)
    network.freeze_encoder(frozen=False)
    assert all(parameter.requires_grad for parameter in network.parameters())


@torch.no_grad()
def test_padding_accepts_odd_sizes_and_crops_the_logits(build):
    padding, plain = build(pad=True), build()
    plain.load_state_dict(padding.state_dict())
    x = image(2, 1, 37, 50)
    stride = plain.total_stride[0]
    padded = torch.nn.functional.pad(x, (0, -50 % stride, 0, -37 % stride), mode="replicate")
    assert torch.equal(padding.eval()(x), plain.eval()(padded)[:, :, :37, :50])
    even = image(2, 1, 64, 64)
    assert torch.equal(padding(even), plain(even))
    assert padding(image(1, 1, 1, 1)).shape == (1, 3, 1, 1)
    with pytest.raises(InputError, match="expected multiples of the network's total stride"):
        plain(x)


def test_padding_crops_every_stage_while_training():
    network = NETWORKS["enc"](pad=True).train()
    assert [tuple(each.shape[2:]) for each in network(image(1, 1, 37, 50))] == [(37, 50), (19, 25)]


def test_padding_reaches_the_patch_size_if_channels_are_tokens():
    network = XLSTMUNet(1, 3, patch_size=(16, 16), features=(4, 8, 32), pad=True).eval()
    assert network.fixed_map_sizes
    with torch.no_grad():
        assert network(image(1, 1, 5, 9)).shape == (1, 3, 5, 9)
        with pytest.raises(InputError, match="expected the patch_size"):
            network(image(1, 1, 17, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_with_16_bit_weights_run_on_a_cpu(build, dtype):
    network = build().eval()
    x = image(2, 1, 64, 32)
    with torch.no_grad():
        expected = network(x)
        logits = network.to(dtype)(x.to(dtype))
    assert logits.dtype == dtype
    # Measured: at most 0.03 in bfloat16 and 0.005 in float16.
    bound = 0.1 if dtype == torch.bfloat16 else 0.02
    assert (logits.float() - expected).norm() <= bound * expected.norm()
