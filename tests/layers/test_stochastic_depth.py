"""Random factors of stochastic depth for many branches, drawn at once."""

import pytest
import torch

from scanseg.layers import SharedDraws
from scanseg.layers.stochastic_depth import StochasticDepth
from scanseg.networks import MSVMUNet

RATES = (0.0, 0.25, 0.5)


@pytest.fixture
def depths():
    return [StochasticDepth(rate) for rate in RATES]


def test_factors_have_the_rate_and_the_mean_of_each_branch(depths):
    torch.manual_seed(0)
    first, *others = SharedDraws(RATES)(depths, torch.zeros(20_000, 3))
    assert first is None
    for rate, factors in zip(RATES[1:], others, strict=True):
        assert set(factors.tolist()) == {0.0, torch.tensor(1 / (1 - rate)).item()}
        assert (factors == 0).float().mean().item() == pytest.approx(rate, abs=0.02)
    assert not torch.equal(others[0] == 0, others[1] == 0)


def test_evaluation_draws_nothing(depths):
    draws = SharedDraws(RATES).eval()
    state = torch.get_rng_state()
    assert draws([depth.eval() for depth in depths], torch.zeros(2, 3)) == [None] * 3
    assert torch.equal(torch.get_rng_state(), state)


def test_changed_rates_and_frozen_branches_are_respected(depths):
    draws = SharedDraws(RATES)
    depths[1].rate = 0.0
    depths[2].eval()
    assert draws(depths, torch.zeros(2, 3)) == [None] * 3


def test_a_network_draws_once_in_the_encoder_and_in_the_decoder(monkeypatch):
    network = MSVMUNet(1, 3, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.5)
    drawn = []
    original = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, **kind: drawn.append(shape) or original(*shape, **kind))
    network(torch.zeros(2, 1, 32, 32))
    # The first block of the encoder and the last one of the decoder keep all samples.
    assert drawn == [(2 * 3, 2), (2 * 2, 2)]
    assert not [name for name in network.state_dict() if "draws" in name]


def test_a_compiled_network_draws_the_same(depths):
    torch._inductor.config.fallback_random, before = True, torch._inductor.config.fallback_random
    try:
        draws = SharedDraws(RATES)
        torch.manual_seed(0)
        expected = draws(depths, torch.zeros(64, 3))
        torch.manual_seed(0)
        found = torch.compile(draws, fullgraph=True)(depths, torch.zeros(64, 3))
    finally:
        torch._inductor.config.fallback_random = before
        torch.compiler.reset()
    assert found[0] is None
    for drawn, wanted in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(drawn, wanted)
