"""Parameters that are converted by one launch for a whole pass of a network."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from scanseg.ops import Wanted, weights_converted
from scanseg.ops._support import pass_weights
from scanseg.ops._support.pass_weights import converted_weights
from scanseg.ops._support.triton import INTERPRETED

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(not INTERPRETED, reason="the kernel runs in Triton's interpreter")

IMAGES = torch.zeros(1)
CHANNELS, STATE = 70, 3


class Parameters(nn.Module):
    """One parameter of each form. Their sizes are no multiples of a block."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def noise(*shape):
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.weight, self.bias = noise(9, 1200), noise(13)
        self.small, self.middle, self.large = (noise(CHANNELS, 1, size, size) for size in (1, 3, 5))
        self.A_log, self.D_skip = noise(4, CHANNELS, STATE), noise(4, CHANNELS)

    def forward(self, dtype=torch.float16):
        """Return the converted parameters of a pass."""
        with weights_converted(self, IMAGES, dtype, self.requests):
            return converted_weights(self.weight, dtype)

    def requests(self):
        """Return the requests of one branch."""
        kernels = (self.small, self.middle, self.large)
        casts = (Wanted("cast", (self.weight,)), Wanted("cast", (self.bias,)))
        scan = (Wanted("rates", (self.A_log,)), Wanted("skips", (self.D_skip,)))
        return [(*casts, Wanted("taps", kernels), Wanted("taps", (self.middle,)), *scan)]

    def expected(self, dtype):
        """Return the same tensors by PyTorch."""
        merged = torch.zeros(5, 5, CHANNELS)
        for kernel in (self.small, self.middle, self.large):
            margin = (5 - kernel.shape[-1]) // 2
            merged[margin : 5 - margin, margin : 5 - margin] += kernel[:, 0].permute(1, 2, 0)
        taps = (merged.flatten(0, 1), self.middle.flatten(1).t())
        rates = -self.A_log.exp().mT
        return (self.weight.to(dtype), self.bias.to(dtype), *taps, rates, self.D_skip.sum(0))


@pytest.fixture
def module():
    return Parameters()


def assert_converted(found, expected):
    for tensor, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor, wanted.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_every_form_equals_its_definition(module, dtype):
    assert_converted(module(dtype), module.expected(dtype))


def test_wrong_results_are_refused_once_and_reported(module, monkeypatch, caplog):
    monkeypatch.setattr(pass_weights, "_refused", set())
    convert = pass_weights._convert

    def convert_wrongly(rows, dtype):
        convert(rows, dtype)
        next(iter(pass_weights._tables[module].values())).converted[2][1].mul_(1.5)

    monkeypatch.setattr(pass_weights, "_convert", convert_wrongly)
    assert module() is None
    assert module() is None
    (record,) = caplog.records
    assert "its results are wrong (relative error 0.5, expected at most 0.01)" in record.getMessage()
    monkeypatch.setattr(pass_weights, "_convert", convert)
    assert module() is None


def test_results_that_are_not_written_yet_are_not_judged(module, monkeypatch):
    monkeypatch.setattr(pass_weights, "is_compiling_ahead", lambda: True)
    monkeypatch.setattr(pass_weights, "_convert", lambda rows, dtype: None)
    assert module() is not None
    monkeypatch.undo()
    assert_converted(module(), module.expected(torch.float16))
    assert next(iter(pass_weights._tables[module].values())).is_checked


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_parameters_without_a_finite_size_are_no_fault(module, monkeypatch, value, caplog):
    monkeypatch.setattr(pass_weights, "_refused", set())
    with torch.no_grad():
        module.weight[0, 0] = value
        module.bias.fill_(value)
    assert module() is not None
    assert caplog.records == []


def test_float32_weights_are_not_copied(module):
    assert module(torch.float32)[0].data_ptr() == module.weight.data_ptr()


def test_each_pass_reads_the_parameters_again(module):
    first = module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.data.mul_(0.5)  # no counter of PyTorch notices this
    second = module()
    assert [tensor.data_ptr() for tensor in first] == [tensor.data_ptr() for tensor in second]
    assert_converted(second, module.expected(torch.float16))


def test_moved_and_replaced_parameters_are_found(module):
    module()
    module.weight.data = torch.ones_like(module.weight)
    module.bias = nn.Parameter(torch.ones_like(module.bias))
    assert_converted(module(), module.expected(torch.float16))


def test_other_leaves_of_the_same_memory_take_the_same_results(module):
    expected = module()
    leaves = {name: nn.Parameter(each.detach()) for name, each in module.named_parameters()}
    found = functional_call(module, leaves, ())
    assert [tensor.data_ptr() for tensor in found] == [tensor.data_ptr() for tensor in expected]


def test_nothing_is_converted_outside_of_a_pass(module):
    module()
    assert converted_weights(module.weight) is None
    with weights_converted(module, IMAGES, torch.float16, module.requests):
        with weights_converted(module, IMAGES, torch.float32, module.requests):
            assert converted_weights(module.weight, torch.float16) is None
        assert converted_weights(module.weight, torch.float16) is not None
        assert converted_weights(module.weight, torch.float32) is None


def test_traced_passes_and_wide_dtypes_convert_nothing(module):
    with TorchDispatchMode():
        assert module() is None
    assert module(torch.float64) is None


def test_replicas_convert_nothing(module):
    replica = module._replicate_for_data_parallel()
    for name, parameter in module.named_parameters():
        setattr(replica, name, parameter.detach())
    assert replica() is None
    assert replica not in pass_weights._tables  # a table would be built for each pass


def test_branches_with_other_parameters_are_left_out(module):
    module.bias = nn.Parameter(module.bias.detach().half())
    assert module() is None
    module.bias = nn.Parameter(torch.ones(2 * 13)[::2])
    assert module() is None


def test_networks_whose_parameters_always_move_are_left_alone(module, monkeypatch):
    monkeypatch.setattr(pass_weights, "MOST_TABLES", 2)
    kept = []
    for _ in range(2):
        kept.append(module.weight.data)
        module.weight.data = module.weight.data.clone()
        assert module() is not None
    kept.append(module.weight.data)
    module.weight.data = module.weight.data.clone()
    assert module() is None
