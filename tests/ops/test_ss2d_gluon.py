"""The four-direction scan's kernels in Gluon, emulated, against the float64 recurrence."""

import pytest
import torch

from scanseg.ops import scan_state_bytes, verification
from scanseg.ops._support.launching import Launch
from scanseg.ops.ss2d import gluon_backend
from scanseg.ops.ss2d.gluon_backend import Walk
from scanseg.ops.ss2d.kept_states import kept_like
from scanseg.ops.ss2d.triton_backend import FORWARD

from .emulated_gluon import EmulatedKernels
from .precision import assert_accurate, cast, kept_bytes
from .test_scans import GATES, grad_for, map_inputs, scan_map

pytest.importorskip("triton.experimental.gluon")

MODULES = [f"scanseg.ops.ss2d.gluon_{name}" for name in ("layouts", "blocks", "copies", "kernels")]


@pytest.fixture
def kernels(monkeypatch):
    """The kernels. The backend runs them emulated, for maps in bfloat16."""
    emulated = EmulatedKernels(MODULES, monkeypatch)
    monkeypatch.setattr(gluon_backend, "INTERPRETED", False)

    def launch_of(kernel, grid, numbers, **constants):
        planned = Launch(kernel, grid, numbers, **constants)

        def run(*tensors):
            planned._require_same_dtypes(tensors)
            emulated.launch(kernel.__name__, grid, *tensors, *numbers, **constants)

        return run

    monkeypatch.setattr(gluon_backend, "Launch", launch_of)
    gluon_backend.forget_launches()
    yield emulated
    gluon_backend.forget_launches()


def check(kernels, generator, gates, **shapes):
    inputs = cast(map_inputs(generator, gates, **shapes), torch.bfloat16)
    assert_accurate(scan_map("triton"), scan_map("reference"), inputs, grad_for(inputs, generator))
    assert kernels.launched == ["scan_map", "scan_map_backward"]


@pytest.mark.parametrize("gates", GATES)
def test_accuracy(generator, kernels, gates):
    check(kernels, generator, gates, dim=20, rank=3, size=(7, 6))


@pytest.mark.parametrize(
    ("walk", "rank"),
    [
        (Walk(1, 1, tokens=8, programs=1, registers=None), 4),
        (Walk(2, 4, tokens=8, programs=2, registers=None), 15),
        (Walk(4, 2, tokens=4, programs=1, registers=168), 6),
        (Walk(1, 2, tokens=4, programs=2, registers=None), 16),
    ],
)
@pytest.mark.parametrize("dim", [16, 21])
def test_every_walk(generator, kernels, monkeypatch, walk, rank, dim):
    monkeypatch.setattr(gluon_backend, "walk_for", lambda shape: walk)
    # Of a single map, the sums of both programs would have the same place in each order of the axes.
    check(kernels, generator, "random", batch=walk.programs, dim=dim, rank=rank, size=(13, 11))


def test_maps_at_addresses_that_are_not_aligned(generator, kernels):
    """Copies of tiles need addresses that 16 divides."""

    def moved(tensor):
        rows = tensor.movedim(1, -1) if tensor.dim() == 4 else tensor.permute(0, 3, 4, 1, 2)
        memory = rows.new_empty(rows.numel() + 1)[1:].view(rows.shape).copy_(rows)
        return memory.movedim(-1, 1) if tensor.dim() == 4 else memory.permute(0, 3, 4, 1, 2)

    inputs = cast(map_inputs(generator, "random", dim=16, rank=2, size=(5, 4)), torch.bfloat16)
    for name in ("x", "projected"):
        inputs[name] = moved(inputs[name])
        assert inputs[name].data_ptr() % 16 == 2
    assert_accurate(scan_map("triton"), scan_map("reference"), inputs, grad_for(inputs, generator))
    assert kernels.launched == ["scan_map", "scan_map_backward"]


def test_upstream_gradients_in_both_dtypes(generator, kernels):
    inputs = cast(map_inputs(generator, "random", dim=16, rank=2, size=(5, 4)), torch.bfloat16)
    parameters = [inputs[name] for name in ("dt_weight", "dt_bias", "A_log", "D_skip")]
    _, states = gluon_backend.scan(inputs["x"], inputs["projected"], *parameters)
    grad = grad_for(inputs, generator).bfloat16()
    found, expected = (
        gluon_backend.packed_gradients(each, inputs["x"], inputs["projected"], *parameters, states)
        for each in (grad, grad.float())
    )
    for tensor, wanted in zip(found, expected, strict=True):
        assert torch.equal(tensor, wanted)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 96, 56, 56), (4, 2, 8, 2, None)),
        ((64, 96, 56, 56), (4, 2, 8, 1, None)),
        ((32, 192, 28, 28), (2, 2, 8, 1, None)),
        ((32, 384, 14, 14), (1, 1, 4, 1, None)),
        ((32, 768, 7, 7), (1, 1, 4, 1, 168)),
    ],
)
def test_walks_of_stages(shape, expected):
    assert gluon_backend.walk_for(shape) == expected


@pytest.mark.parametrize(
    ("shape", "dtype", "state", "expected"),
    [
        ((32, 96, 56, 56), torch.bfloat16, 1, True),
        ((1, 768, 7, 7), torch.bfloat16, 1, True),
        ((1, 96, 56, 56), torch.bfloat16, 1, False),  # too few programs
        ((32, 96, 56, 56), torch.float16, 1, False),
        ((32, 96, 56, 56), torch.bfloat16, 2, False),
        ((64, 32, 1025, 1024), torch.bfloat16, 1, False),  # too many pixels
    ],
)
def test_which_calls_run(monkeypatch, shape, dtype, state, expected):
    monkeypatch.setattr(gluon_backend, "INTERPRETED", False)
    x, A_log = (torch.empty(size, device="meta") for size in (shape, (4, shape[1], state)))
    assert gluon_backend.accepts(x, A_log, dtype, dtype) == expected
    states = kept_like(x, A_log, dtype, dtype)[0]
    if dtype == torch.bfloat16:
        assert states.nbytes == scan_state_bytes(shape, state=state)
    assert states.shape[2] == -(
        -shape[2] * shape[3] // (gluon_backend.walk_for(shape).tokens if expected else FORWARD.tokens)
    )


def test_a_branch_runs_them(kernels):
    case = verification._cases(torch.device("cpu"))["ss2d_branch"]
    inputs = verification._inputs(case, torch.bfloat16, torch.device("cpu"))
    expected = verification._results(case, {name: each.double() for name, each in inputs.items()}, "composed")
    found = verification._results(case, inputs, "triton")
    assert sorted(kernels.launched) == ["scan_map"] * 2 + ["scan_map_backward"] * 2
    for tensor, wanted in zip(found, expected, strict=True):
        assert (tensor.double() - wanted).norm() <= 0.05 * wanted.norm()


def test_kept_states_have_the_counted_bytes(generator, kernels):
    inputs = cast(map_inputs(generator, "random", dim=20, rank=3, size=(7, 6)), torch.bfloat16)
    assert kept_bytes(scan_map("triton"), inputs) == [scan_state_bytes((2, 20, 7, 6), state=1)]
    assert kernels.launched == ["scan_map"]
    assert scan_state_bytes((2, 20, 7, 6), state=1) == 2 * 4 * 11 * 20 * 4  # 42 pixels, 4 for each state


def test_kept_states_of_segments_have_the_counted_bytes(generator):
    inputs = cast(map_inputs(generator, "random", dim=20, rank=3, state=2, size=(7, 6)), torch.bfloat16)
    states, rates, skips = kept_bytes(scan_map("triton"), inputs)
    assert states == scan_state_bytes((2, 20, 7, 6), state=2) == 2 * 4 * 2 * 2 * 20 * 4
    assert (rates, skips) == (4 * 2 * 20 * 4, 20 * 4)
