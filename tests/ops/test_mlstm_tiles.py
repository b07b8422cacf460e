"""The mLSTM's Triton kernels for chunks of one tile, in Triton's interpreter."""

import pytest
import torch

from scanseg.ops import mlstm_state_bytes
from scanseg.ops.mlstm import mlstm, triton_layout
from scanseg.ops.mlstm import triton_backend as triton_gpu
from scanseg.ops.mlstm.triton_layout import Layout, lay_out

from .precision import assert_accurate, cast, kept_bytes, poisoned, relative_errors, run
from .test_mlstm_cell import GATES, make_inputs, operator


@pytest.fixture
def tiles(monkeypatch):
    """Use chunks of 32 tokens in blocks of 16, so that few tokens make several chunks."""
    use_tiles(monkeypatch, tile=32, block=16)


def use_tiles(monkeypatch, *, tile, block):
    def choose(token, dim, dtype):
        cols = next(size for size in (16, 32, 64) if size >= dim)
        return Layout(-(-token // tile), tile, block, tile // block, cols, 1, tiled=True)

    monkeypatch.setattr(triton_gpu, "lay_out", choose)


@pytest.mark.parametrize(("token", "reverse"), [(33, False), (80, True)])
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.usefixtures("tiles")
def test_float32_accuracy(generator, gates, token, reverse):
    inputs = make_inputs(generator, gates, batch=1, head=1, token=token)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    function, reference = operator("triton", reverse=reverse), operator("reference", reverse=reverse)
    assert_accurate(function, reference, cast(inputs, torch.float32), grad)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.usefixtures("tiles")
def test_bfloat16_accuracy(generator, gates):
    inputs = cast(make_inputs(generator, gates, batch=1, head=1, token=70), torch.bfloat16)
    grad = torch.randn(inputs["q"].shape, generator=generator).bfloat16()
    assert_accurate(operator("triton"), operator("reference"), inputs, grad)


@pytest.mark.parametrize(("tile", "block", "token", "dim"), [(16, 16, 280, 3), (64, 16, 130, 20)])
def test_groups_of_chunks_and_several_blocks(generator, monkeypatch, tile, block, token, dim):
    """280 tokens are 18 chunks of 16, and their 17 states two groups."""
    from scanseg.ops.mlstm import triton_tile_launch

    monkeypatch.setattr(triton_tile_launch, "LARGEST_GROUP", 16)
    use_tiles(monkeypatch, tile=tile, block=block)
    inputs = make_inputs(generator, "near one", batch=1, head=1, token=token, dim=dim)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    results, expected = (
        run(operator(name, reverse=tile == 64), inputs, grad) for name in ("triton", "chunked")
    )
    assert max(relative_errors(results, expected).values()) < 1e-12


@pytest.mark.parametrize(("token", "reverse"), [(40, False), (70, True)])
@pytest.mark.usefixtures("tiles")
def test_poisoned_memory(generator, token, reverse):
    """Kernels read nothing around strided inputs, and nothing in new memory that they did not write."""
    inputs = make_inputs(generator, "random", batch=1, token=token, dim=5)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    expected = run(operator("chunked", reverse=reverse), inputs, grad)
    strided = {name: poisoned(tensor) for name, tensor in inputs.items()}
    torch.use_deterministic_algorithms(True)  # Fills new memory with NaN.
    try:
        results = run(operator("triton", reverse=reverse), strided, poisoned(grad))
    finally:
        torch.use_deterministic_algorithms(False)
    assert max(relative_errors(results, expected).values()) < 1e-12


@pytest.mark.parametrize("level", [-60000.0, 60000.0])
@pytest.mark.usefixtures("tiles")
def test_extreme_gates_are_finite(generator, level):
    inputs = make_inputs(generator, "random", batch=1, head=1, token=70)
    for name in ("igate", "fgate"):
        extreme = cast({**inputs, name: torch.full_like(inputs[name], level)}, torch.bfloat16)
        results = run(operator("triton"), extreme, torch.ones_like(extreme["q"]))
        assert all(tensor.isfinite().all() for tensor in results.values())


@pytest.mark.usefixtures("tiles")
def test_a_closed_chunk_keeps_the_decays_after_it(generator):
    """Sums of log forget gates over several chunks stay exact behind a chunk that closes every gate."""
    inputs = make_inputs(generator, "near one", batch=1, head=1, token=100)
    inputs["fgate"][:, :, 32:64] = -1e6
    inputs["igate"][:, :, 32:64] = -1e6
    grad = torch.randn(inputs["q"].shape, generator=generator)
    assert_accurate(operator("triton"), operator("chunked"), cast(inputs, torch.float32), grad)


@pytest.mark.usefixtures("tiles")
def test_gradcheck(generator):
    inputs = make_inputs(generator, "random", batch=1, head=1, token=40, dim=2)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(lambda *args: mlstm(*args, backend="triton"), tensors, fast_mode=True)


@pytest.mark.usefixtures("tiles")
def test_operators_pass_opcheck(generator):
    inputs = cast(make_inputs(generator, "random", batch=1, head=1, token=40, dim=3), torch.float32)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs.values()]
    torch.library.opcheck(triton_gpu.run_forward, (*leaves, False))
    q, k, v, _, fgate = inputs.values()
    results = triton_gpu.run_forward(*inputs.values(), False)
    torch.library.opcheck(triton_gpu.run_backward, (torch.ones_like(q), q, k, v, fgate, *results, False))


def test_the_backward_pass_keeps_one_state_per_chunk(generator):
    inputs = cast(make_inputs(generator, "random", batch=1, head=1, token=1100, dim=64), torch.bfloat16)
    layout = lay_out(1100, 64, torch.bfloat16)
    *_, matrices, normalisers = torch.ops.scanseg.mlstm_triton(
        *(x.to("meta") for x in inputs.values()), False
    )
    assert layout.tiled
    assert (matrices.shape, matrices.dtype) == ((1, 8, 64 * 64), torch.bfloat16)
    assert (normalisers.shape, normalisers.dtype) == ((1, 8, 64), torch.float32)


@pytest.mark.parametrize(
    ("token", "dim", "dtype", "tiled"),
    [
        (4096, 128, torch.bfloat16, True),
        (1025, 64, torch.bfloat16, True),
        (1024, 128, torch.bfloat16, False),
        (4096, 160, torch.bfloat16, False),
        (4096, 32, torch.bfloat16, False),
        (4096, 128, torch.float16, False),
        (4096, 64, torch.float32, False),
    ],
)
def test_tiled_layouts(token, dim, dtype, tiled):
    assert lay_out(token, dim, dtype).tiled == tiled


@pytest.mark.usefixtures("tiles")
def test_kept_states_have_the_counted_bytes(generator, monkeypatch):
    monkeypatch.setattr(triton_layout, "lay_out", triton_gpu.lay_out)
    inputs = cast(make_inputs(generator, "random", batch=2, head=3, token=70, dim=20), torch.bfloat16)
    # Row sums, planes and frames of the gates, and matrices and normalizers of two states.
    *_, matrices, normalizers = kept = kept_bytes(operator("triton"), inputs)
    assert len(kept) == 5
    assert matrices + normalizers == mlstm_state_bytes(2, 3, 70, 20) == 2 * 3 * 2 * (2 * 20**2 + 4 * 20)


@pytest.mark.parametrize(
    "shape", [(2, 4, 4096, 128), (13, 4, 15361, 64), (2, 4, 1024, 128), (9, 2, 2000, 175)]
)
def test_counted_bytes_are_those_of_the_operator(shape):
    tokens = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    gates = torch.empty(shape[:3], dtype=torch.bfloat16, device="meta")
    *_, matrices, normalizers = torch.ops.scanseg.mlstm_triton(tokens, tokens, tokens, gates, gates, False)
    assert matrices.nbytes + normalizers.nbytes == mlstm_state_bytes(*shape)
    assert (mlstm_state_bytes(*shape) > 0) == (shape[2] > 1024 and shape[3] != 175)
