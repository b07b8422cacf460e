"""Maps between a norm and a convolution: small ones are kept for the gradients, large ones are recomputed."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from scanseg.layers import BasicBlockD, BasicResBlock, recomputation
from scanseg.ops.instance_norm import BACKENDS


@pytest.fixture
def on_triton(monkeypatch):
    """Use norms that keep only their argument, as on a GPU."""
    if torch.cuda.is_available():
        pytest.skip("Triton runs on the CPU only in the interpreter")
    monkeypatch.setitem(BACKENDS, "triton", BACKENDS["triton"]._replace(by_name_only=False))


def outputs_and_gradients(block, x):
    leaf = x.clone().requires_grad_()
    y = block(leaf)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), leaf.grad, *(parameter.grad for parameter in block.parameters())]


class Watched(nn.Module):
    """A norm that records weak references to its results."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.results = norm, []

    def forward(self, x, **options):
        y = self.norm(x, **options)
        self.results.append(weakref.ref(y))
        return y


def watch(block):
    watched = Watched(block.recomputed_norm)
    if isinstance(block, BasicResBlock):
        block.norm1 = watched
    else:
        block.conv1.norm = watched
    return watched.results


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3, 3)])
@pytest.mark.parametrize("block", [BasicResBlock, BasicBlockD])
@pytest.mark.parametrize("channels_last", [False, True])
def test_recomputing_a_large_map_does_not_change_results(
    monkeypatch, on_triton, block, kernel, channels_last
):
    block = block(3, 5, kernel_size=kernel)
    x = torch.randn(2, 3, *(6 for _ in kernel))
    if channels_last:
        x = x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    expected = outputs_and_gradients(copy.deepcopy(block), x)
    made = watch(block)
    monkeypatch.setattr(recomputation, "_should_recompute", lambda y: True)
    for result, other in zip(outputs_and_gradients(block, x), expected, strict=True):
        assert torch.equal(result, other)
    assert len(made) == 2


@pytest.mark.parametrize("block", [BasicResBlock, BasicBlockD])
@pytest.mark.parametrize("recompute", [True, False])
def test_only_a_small_map_is_kept(monkeypatch, on_triton, block, recompute):
    block = block(3, 5, kernel_size=(3, 3))
    made = watch(block)
    monkeypatch.setattr(recomputation, "_should_recompute", lambda y: recompute)
    y = block(torch.randn(2, 3, 6, 6))
    gc.collect()
    assert (made[0]() is None) == recompute
    y.sum().backward()
    assert len(made) == 1 + recompute


def test_large_maps_on_a_gpu_are_recomputed():
    large = recomputation.SMALLEST_BYTES // 2
    assert not recomputation._should_recompute(torch.empty(0))

    class OnGPU:
        is_cuda = True

        def __init__(self, values):
            self.nbytes = 2 * values

    assert recomputation._should_recompute(OnGPU(large))
    assert not recomputation._should_recompute(OnGPU(large - 1))


def test_nothing_is_recomputed_without_gradients(monkeypatch):
    block = BasicResBlock(3, 5, kernel_size=(3, 3)).eval()
    made = watch(block)
    monkeypatch.setattr(recomputation, "_should_recompute", lambda y: True)
    with torch.inference_mode():
        block(torch.randn(2, 3, 6, 6))
    assert len(made) == 1
