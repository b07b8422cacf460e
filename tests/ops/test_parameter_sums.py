"""Gradients of a branch's parameters from partial sums, by one launch."""

import pytest
import torch

from scanseg.ops._support.parameter_sums import Layout, Piece, _row_sums_plan, layout_of, row_sums, summed
from scanseg.ops._support.triton import INTERPRETED

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(not INTERPRETED, reason="the kernel runs in Triton's interpreter")

DIM, STATE, RANK = 37, 3, 2


def pieces(shapes):
    return (
        Piece(0, (4, DIM, RANK)),
        Piece(0, (4, STATE, DIM), "decays"),
        Piece(0, (4, DIM), "repeated"),
        Piece(1, (25, DIM), "taps", (1, 3, 5)),
    )


@pytest.fixture
def partials(generator):
    columns = 4 * DIM * RANK + 4 * STATE * DIM + DIM
    # More parts than a program reads at a time, and a single part.
    return [torch.randn(shape, generator=generator) for shape in ((70, columns), (1, 25, DIM), (5, 2, DIM))]


def expected(partials):
    scan, taps, norm = (partial.sum(0) for partial in partials)
    weights, decays, skips = scan.split([4 * DIM * RANK, 4 * STATE * DIM, DIM])
    square = taps.view(5, 5, DIM)
    kernels = [square[margin : 5 - margin, margin : 5 - margin].permute(2, 0, 1) for margin in (2, 1, 0)]
    return [weights, decays.view(4, STATE, DIM).mT, skips.expand(4, -1), *kernels, norm[0], norm[1]]


def test_every_form_equals_its_definition(partials):
    layout = layout_of(pieces, (), DIM)
    found = summed(partials, layout).split(layout.counts)
    for tensor, wanted in zip(found, expected(partials), strict=True):
        torch.testing.assert_close(tensor, wanted.flatten())


def test_sums_are_repeatable(partials):
    layout = layout_of(pieces, (), DIM)
    assert torch.equal(summed(partials, layout), summed(partials, layout))


def test_other_dtypes_take_that_of_the_first_matrix(partials):
    layout = Layout([Piece(0, (2, DIM)), Piece(1, (2, DIM))])
    narrow = partials[2].half()
    found = summed([partials[2].double(), narrow], layout)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[2 * DIM :], narrow.double().sum(0).flatten())


@pytest.mark.parametrize("shape", [(1, 5), (70, 37), (2000, 96)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_sums_over_rows(generator, shape, dtype):
    matrix = torch.randn(shape, generator=generator).to(dtype)
    parts = row_sums(matrix)
    assert parts.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert len(parts) <= -(-shape[0] // 64)
    torch.testing.assert_close(parts.sum(0).double(), matrix.double().sum(0), rtol=1e-5, atol=1e-4)


def test_few_programs_sum_many_rows(generator, monkeypatch):
    monkeypatch.setattr("scanseg.ops._support.parameter_sums.SHARES", 4)
    _row_sums_plan.cache_clear()
    matrix = torch.randn(700, 100, generator=generator, dtype=torch.float64)
    parts = row_sums(matrix)
    _row_sums_plan.cache_clear()
    assert parts.shape == (2, 100)
    torch.testing.assert_close(parts.sum(0), matrix.sum(0))
