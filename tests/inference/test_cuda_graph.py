"""Passes of a network as CUDA graphs: replays and results."""

import logging

import pytest
import torch
from torch import nn

from scanseg.inference import cuda_graph as replay
from scanseg.inference.cuda_graph import DIRECT_PASSES, MAX_SHAPES, CudaGraphNetwork
from scanseg.inference.windows import SlidingWindow
from scanseg.networks import MSVMUNet, XLSTMUNet
from tests.factories import join_slabs


class Recorded:
    """Replaces a captured pass on the CPU and counts captures."""

    captures = 0

    def __init__(self, network, inputs, *, beside, other_threads):
        assert other_threads == "left alone"
        Recorded.captures += 1
        self._network = network

    def __call__(self, windows):
        return self._network(windows) + 1000


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(replay, "GraphedCall", Recorded)
    monkeypatch.setattr(Recorded, "captures", 0)


def double(windows):
    return 2 * windows


def test_first_passes_of_a_shape_run_directly_and_later_ones_replay_a_graph(recorded):
    network = CudaGraphNetwork(double)
    windows = torch.ones(1, 1, 4, 4)
    results = [network(windows).max().item() for _ in range(DIRECT_PASSES + 5)]
    assert results == [2] * DIRECT_PASSES + [1002] * 5
    assert (Recorded.captures, len(network._graphs)) == (1, 1)


def test_number_of_graphs_is_limited(recorded):
    network = CudaGraphNetwork(double)
    for batch in range(1, MAX_SHAPES + 3):
        for _ in range(DIRECT_PASSES + 2):
            assert network(torch.ones(batch, 1, 4, 4)).shape == (batch, 1, 4, 4)
    assert len(network._graphs) == MAX_SHAPES


def test_a_pass_that_cannot_be_captured_runs_directly_with_a_warning(monkeypatch, caplog):
    def refuse(network, inputs, **options):
        raise RuntimeError("operation not permitted when stream is capturing\nmore words")

    monkeypatch.setattr(replay, "GraphedCall", refuse)
    network = CudaGraphNetwork(double)
    with caplog.at_level(logging.WARNING):
        results = [network(torch.ones(1, 1, 2, 2)).max().item() for _ in range(DIRECT_PASSES + 4)]
    assert results == [2] * (DIRECT_PASSES + 4)
    reason = "passes of the network run directly, not as a CUDA graph: operation not permitted when stream is capturing"
    assert caplog.messages == [reason]


def test_errors_of_the_network_propagate():
    def broken(windows):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        CudaGraphNetwork(broken)(torch.ones(1, 1, 2, 2))


def make_network(kind):
    torch.manual_seed(0)
    if kind == "msvm":
        return MSVMUNet(1, 3, dims=(16, 32, 48, 64), depths=(1, 1, 1, 1), decoder_depth=1).cuda().eval()
    strides = ((1, 1), (2, 2), (2, 2))
    return XLSTMUNet(1, 3, patch_size=(32, 32), strides=strides, features=(8, 16, 32)).cuda().eval()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mirror_axes", [(), (0, 1)])
@pytest.mark.parametrize("kind", ["msvm", "xlstm"])
def test_replayed_windows_equal_direct_ones(kind, mirror_axes, dtype, generator):
    network = make_network(kind)
    replayed = CudaGraphNetwork(network)
    image = torch.randn(1, 11, 32, 32, generator=generator)
    sliding_window = SlidingWindow(
        patch_size=(32, 32), num_outputs=3, window_batch=2, mirror_axes=mirror_axes, autocast_dtype=dtype
    )
    gpu = torch.device("cuda")
    expected = join_slabs([network], image, sliding_window, device=gpu)
    result = join_slabs([replayed], image, sliding_window, device=gpu)
    again = join_slabs([replayed], image, sliding_window, device=gpu)
    assert len(replayed._graphs) >= 1
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
def test_replays_use_new_values_of_the_parameters():
    network = nn.Conv2d(1, 2, 1).cuda()
    replayed = CudaGraphNetwork(network)
    windows = torch.ones(1, 1, 4, 4, device="cuda")
    for _ in range(DIRECT_PASSES + 2):
        replayed(windows)
    with torch.no_grad():
        network.weight.fill_(3)
        network.bias.fill_(1)
    assert len(replayed._graphs) == 1
    assert torch.equal(replayed(windows), torch.full((1, 2, 4, 4), 4.0, device="cuda"))


@pytest.mark.gpu
def test_a_network_that_reads_a_value_back_runs_directly(caplog):
    def network(windows):
        return windows * (1 + float(windows.max() > 100))

    replayed = CudaGraphNetwork(network)
    for value in (1.0, 1.0, 1.0, 200.0, 200.0):
        windows = torch.full((1, 1, 4, 4), value, device="cuda")
        expected = value * (2 if value > 100 else 1)
        assert replayed(windows).max().item() == expected
    assert len(replayed._graphs) == 0
    assert len(caplog.messages) == 1
