"""The memory format of a network's maps follows its weights."""

from copy import deepcopy
from functools import partial

import pytest
import torch

from scanseg.layers import InstanceNorm, SequenceLayer
from scanseg.networks import PlainUNet, ResidualUNet, XLSTMUNet, place_network, set_channels_last
from scanseg.ops._support.triton import MISSING
from scanseg.ops.instance_norm import BACKENDS as NORM_BACKENDS
from scanseg.ops.upsample_join import BACKENDS as JOIN_BACKENDS

STRIDES = {2: ((1, 1), (2, 2), (2, 2), (1, 2)), 3: ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2))}
SIZES = {2: (16, 32), 3: (4, 8, 16)}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
NETWORKS = {
    "xlstm-enc": lambda axes: XLSTMUNet(
        1, 2, patch_size=SIZES[axes], strides=STRIDES[axes], features=(4, 6, 8, 12), num_blocks_encoder=1
    ),
    "xlstm-bot": lambda axes: XLSTMUNet(
        3, 2, patch_size=SIZES[axes], strides=STRIDES[axes], features=(4, 6, 8, 12), variant="bot"
    ),
    "plain": lambda axes: PlainUNet(1, 2, strides=STRIDES[axes], features=(4, 6, 8, 12)),
    "residual": lambda axes: ResidualUNet(
        1, 2, strides=STRIDES[axes], features=(4, 6, 8, 12), num_blocks_encoder=(1, 1, 1, 1)
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_rank = pytest.mark.parametrize("axes", [2, 3])


def built(name, axes, *, channels_last):
    torch.manual_seed(0)
    network = NETWORKS[name](axes)
    set_channels_last(network, channels_last=channels_last)
    return network


def images(network, axes):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, network.in_channels, *SIZES[axes], generator=generator)


def results(network, x):
    outputs = network(x)
    sum(output.square().mean() for output in outputs).backward()
    return [output.detach() for output in outputs], [parameter.grad for parameter in network.parameters()]


@every_network
@every_rank
def test_channels_last_gives_the_same_numbers(name, axes):
    first, last = (built(name, axes, channels_last=channels_last).double() for channels_last in (False, True))
    x = images(first, axes).double()
    for ours, theirs in zip(results(last, x), results(first, x), strict=True):
        for tensor, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(tensor, expected, check_stride=False)


@pytest.fixture
def kernels(monkeypatch):
    """Use the Triton kernels as on a GPU, in the interpreter."""
    if MISSING is not None:
        pytest.skip(MISSING)
    for table in (NORM_BACKENDS, JOIN_BACKENDS):
        monkeypatch.setitem(table, "triton", table["triton"]._replace(by_name_only=False))


def watch_maps(network, axes):
    """Record for every norm and layer over voxels whether inputs and outputs are channels-last."""
    seen = {}

    def watch(module, arguments, output, key):
        seen[key] = [tensor.is_contiguous(memory_format=FORMATS[axes]) for tensor in (*arguments, output)]

    for key, module in network.named_modules():
        # Two small maps are not channels-last: if channels are the tokens, and after PyTorch's average pooling in 3D.
        by_voxels = isinstance(module, SequenceLayer) and module.tokens == "voxel"
        if (isinstance(module, InstanceNorm) and "shortcut" not in key) or by_voxels:
            module.register_forward_hook(partial(watch, key=key))
    return seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="float64 kernels run in the interpreter only")
@every_network
@every_rank
def test_kernels_keep_maps_channels_last_and_give_the_same_numbers(name, axes, request):
    plain = built(name, axes, channels_last=False).double()
    x = images(plain, axes).double()
    expected = results(plain, x)
    request.getfixturevalue("kernels")
    network = built(name, axes, channels_last=True).double()
    for ours, theirs in zip(results(network, x), expected, strict=True):
        for tensor, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(tensor, wanted, check_stride=False)
    # In float32: CPUs convolve 3D maps of float64 channels-first.
    network = network.float()
    seen = watch_maps(network, axes)
    with torch.no_grad():
        network.eval()(x.float())
    assert len(seen) >= 10
    assert [key for key, formats in seen.items() if not all(formats)] == []


# Raised inside dynamo while it traces an autograd function, in torch 2.13.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Training of the 2D xLSTM-UNet under torch.compile:RuntimeWarning")
def test_compiles_with_kernels_as_one_graph(kernels):
    torch.compiler.reset()
    network = built("xlstm-enc", 2, channels_last=True)
    x = images(network, 2)
    expected, gradients = results(network, x)
    network.zero_grad()
    outputs, found = results(torch.compile(network, fullgraph=True, backend="aot_eager"), x)
    torch.testing.assert_close(outputs, expected)
    ours, theirs = (torch.cat([grad.flatten() for grad in grads]) for grads in (found, gradients))
    # Kinks of the leaky ReLU amplify rounding.
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


@every_network
def test_copies_and_loaded_weights_keep_the_format(name):
    network = built(name, 3, channels_last=True)
    strides = [parameter.stride() for parameter in network.parameters()]
    network.load_state_dict(built(name, 3, channels_last=False).state_dict())
    copy = deepcopy(network)
    assert copy.channels_last
    assert [parameter.stride() for parameter in network.parameters()] == strides
    assert [parameter.stride() for parameter in copy.parameters()] == strides
    optimizer = torch.optim.AdamW(copy.parameters())
    results(copy, images(copy, 3))
    optimizer.step()
    averages = [optimizer.state[parameter]["exp_avg"].stride() for parameter in copy.parameters()]
    assert averages == strides


@every_network
def test_maps_stay_channels_first_on_the_cpu(name):
    network = place_network(NETWORKS[name](2), torch.device("cpu"))
    assert not network.channels_last
    assert all(parameter.is_contiguous() for parameter in network.parameters())


@pytest.mark.gpu
@every_network
@every_rank
def test_on_a_gpu_every_map_is_channels_last_and_the_numbers_are_those_of_the_cpu(name, axes, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cuda = torch.device("cuda")
    network = NETWORKS[name](axes)
    placed = place_network(deepcopy(network), cuda)
    assert placed.channels_last
    x = images(network, axes)
    expected, gradients = results(network, x)
    outputs, found = results(placed, x.to(cuda))
    for output, tensor in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output.cpu(), tensor, atol=1e-2, rtol=1e-2, check_stride=False)
    ours, theirs = (torch.cat([grad.flatten().cpu() for grad in grads]) for grads in (found, gradients))
    assert (ours - theirs).norm() < 0.02 * theirs.norm()
