"""The mLSTM cell: every backend against the float64 recurrence, and the recurrence against the published formula."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from scanseg.errors import InputError, UsageError
from scanseg.ops.mlstm import BACKENDS, mlstm
from scanseg.ops.mlstm import triton_backend as triton_gpu
from scanseg.ops.mlstm import triton_layout as gpu_layout
from scanseg.ops.mlstm.pytorch_backend import chunk_size

from .precision import LargestTensor, assert_accurate, cast, poisoned, relative_errors, run

backends = pytest.mark.parametrize("backend", BACKENDS)
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
GATES = ("random", "near one", "saturated")
# The interpreter takes seconds for work of microseconds on a GPU.
TOKENS = {
    "triton": (1, 2, 31, 32, 33, 97),
    "chunked": (1, 2, 127, 128, 129, 197, 384),
    "plain": (1, 2, 63, 64, 65, 197, 384),
    "reference": (1, 2),
}


@pytest.fixture
def small_layout(monkeypatch):
    """Use blocks of 16 tokens and 16 features and chunks of 32 tokens, so that few tokens make several chunks."""

    def lay_out(token, dim, dtype):
        chunks = -(-token // 32)
        padded = 32 if token > 16 else 16
        blocks = 2 if token > 32 else -(-token // 16)
        return gpu_layout.Layout(chunks, padded, 16, blocks, 16, -(-dim // 16))

    monkeypatch.setattr(triton_gpu, "lay_out", lay_out)


def make_inputs(generator, gates, *, batch=2, head=2, token=8, dim=6):
    """Make float64 inputs.

    q and k have a positive mean, because raw h is ill-conditioned if the row sum is near exp(-m).
    """
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    uniform = partial(torch.rand, generator=generator, dtype=torch.float64)
    shape = (batch, head, token)
    igate, fgate = {
        "random": lambda: (2 * normal(shape), 3 * normal(shape)),
        "near one": lambda: (0.5 * normal(shape), 6 + 6 * uniform(shape)),
        # No ties, because the gradient of a maximum is ambiguous at a tie.
        "saturated": lambda: (30 * normal(shape).sign() + normal(shape), 60 * normal(shape).sign()),
    }[gates]()
    q, k = (normal((*shape, dim)) + 0.7 for _ in range(2))
    return {"q": q, "k": k, "v": normal((*shape, dim)), "igate": igate, "fgate": fgate}


def operator(backend=None, *, reverse=False):
    return lambda inputs: mlstm(**inputs, reverse=reverse, backend=backend)


def published(q, k, v, igate, fgate):
    """Compute the published quadratic formula (networks.md, section 2.4)."""
    token, dim = q.shape[2:]
    total = F.logsigmoid(fgate).cumsum(-1)
    read = torch.ones(token, token, dtype=torch.bool).tril()
    D = (total[..., :, None] - total[..., None, :] + igate[..., None, :]).masked_fill(~read, -math.inf)
    m = D.amax(-1, keepdim=True)
    weights = (q @ k.mT / math.sqrt(dim)) * torch.exp(D - m)
    return weights @ v / (torch.maximum(weights.sum(-1, keepdim=True).abs(), torch.exp(-m)) + 1e-6)


@pytest.mark.parametrize("gates", GATES)
@directions
def test_recurrence_is_the_published_formula(generator, gates, reverse):
    inputs = make_inputs(generator, gates, token=41)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)

    def formula(tensors):
        ordered = {name: tensor.flip(2) if reverse else tensor for name, tensor in tensors.items()}
        h = published(**ordered)
        return h.flip(2) if reverse else h

    expected = run(formula, inputs, grad)
    for backend in BACKENDS:
        errors = relative_errors(run(operator(backend, reverse=reverse), inputs, grad), expected)
        assert max(errors.values()) < 1e-10, (backend, errors)


@pytest.mark.parametrize(
    ("backend", "token"),
    [(name, token) for name in BACKENDS for token in TOKENS[name]],
)
@directions
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.usefixtures("small_layout")
def test_float32_accuracy(generator, backend, gates, token, reverse):
    inputs = make_inputs(generator, gates, batch=1 if token == 97 else 2, head=1, token=token)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    assert_accurate(
        operator(backend, reverse=reverse),
        operator("reference", reverse=reverse),
        cast(inputs, torch.float32),
        grad,
    )


@backends
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_accuracy(generator, backend, gates, dtype):
    inputs = cast(make_inputs(generator, gates, token=150), dtype)
    grad = torch.randn(inputs["q"].shape, generator=generator).to(dtype)
    assert mlstm(**inputs, backend=backend).dtype == dtype
    assert_accurate(operator(backend), operator("reference"), inputs, grad)


@pytest.mark.parametrize(("token", "dim"), [(140, 1), (150, 25), (136, 80), (300, 33)])
def test_any_head_size(generator, token, dim):
    inputs = cast(make_inputs(generator, "random", batch=1, token=token, dim=dim), torch.float32)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    assert_accurate(operator("chunked"), operator("reference"), inputs, grad)


@backends
@directions
@pytest.mark.usefixtures("small_layout")
def test_strided_inputs_in_poisoned_memory(generator, backend, reverse):
    inputs = make_inputs(generator, "random", batch=1, token=67 if backend == "chunked" else 37, dim=3)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    strided = {name: poisoned(tensor) for name, tensor in inputs.items()}
    expected = run(operator(backend, reverse=reverse), inputs, grad)
    results = run(operator(backend, reverse=reverse), strided, poisoned(grad))
    assert max(relative_errors(results, expected).values()) < 1e-12


@pytest.mark.parametrize(
    ("backend", "token", "reverse"),
    [
        *(("chunked", token, reverse) for token in (3, 130) for reverse in (False, True)),
        *(("triton", 3, False), ("triton", 40, True)),
    ],
)
@pytest.mark.usefixtures("small_layout")
def test_gradcheck(generator, backend, token, reverse):
    inputs = make_inputs(generator, "random", batch=1, head=1, token=token, dim=2)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    function = partial(mlstm, reverse=reverse, backend=backend)
    assert torch.autograd.gradcheck(function, tensors, fast_mode=token > 3 or backend == "triton")


@pytest.mark.usefixtures("small_layout")
def test_triton_sums_the_gradients_of_forget_gates_over_features_blocks_and_chunks(generator):
    """With forget gates near one, pairs of tokens within a block, within a chunk and across chunks all count."""
    inputs = make_inputs(generator, "near one", batch=1, head=1, token=101, dim=20)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    expected, results = (run(operator(name), inputs, grad)["grad fgate"] for name in ("chunked", "triton"))
    torch.testing.assert_close(results, expected, rtol=1e-9, atol=1e-12 * expected.abs().max().item())


def test_triton_with_the_default_layout(generator, monkeypatch):
    monkeypatch.setattr(gpu_layout, "LONGEST_SINGLE_CHUNK", 100)
    inputs = make_inputs(generator, "random", batch=1, head=1, token=150, dim=33)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    result = run(operator("triton", reverse=True), inputs, grad)
    errors = relative_errors(result, run(operator("chunked", reverse=True), inputs, grad))
    assert max(errors.values()) < 1e-12


@pytest.mark.parametrize("token", [20, 40])
@pytest.mark.usefixtures("small_layout")
def test_triton_operators_pass_opcheck(generator, token):
    inputs = cast(make_inputs(generator, "random", batch=1, head=1, token=token, dim=3), torch.float32)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs.values()]
    torch.library.opcheck(triton_gpu.run_forward, (*leaves, False))
    results = triton_gpu.run_forward(*inputs.values(), False)
    q, k, v, _, fgate = inputs.values()
    torch.library.opcheck(triton_gpu.run_backward, (torch.ones_like(q), q, k, v, fgate, *results, False))


@pytest.mark.parametrize("token", [7, 40, 101])
@directions
@pytest.mark.usefixtures("small_layout")
def test_triton_reads_nothing_that_it_did_not_write(generator, token, reverse):
    inputs = make_inputs(generator, "random", batch=1, head=1, token=token, dim=5)
    grad = torch.randn(inputs["q"].shape, generator=generator, dtype=torch.float64)
    expected = run(operator("chunked", reverse=reverse), inputs, grad)
    torch.use_deterministic_algorithms(True)  # Fills new memory with NaN.
    try:
        results = run(operator("triton", reverse=reverse), inputs, grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert max(relative_errors(results, expected).values()) < 1e-12


@pytest.mark.usefixtures("small_layout")
def test_triton_compiles_without_graph_breaks(generator):
    inputs = cast(make_inputs(generator, "random", batch=1, token=40, dim=3), torch.float32)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    torch.compiler.reset()
    compiled = torch.compile(operator("triton"), backend="aot_eager", fullgraph=True)
    expected, results = (run(function, inputs, grad) for function in (operator("triton"), compiled))
    for name, tensor in expected.items():
        torch.testing.assert_close(results[name], tensor, rtol=0, atol=0)


@pytest.mark.usefixtures("small_layout")
def test_heads_of_triton_results_lie_side_by_side(generator):
    """Then joining the heads copies nothing, and neither does the gradient of splitting them."""
    q, k, v, igate, fgate = cast(make_inputs(generator, "random", token=9), torch.float32).values()
    leaves = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in (q, k, v)]
    h = mlstm(*leaves, igate, fgate, backend="triton")
    for tensor in (h, *torch.autograd.grad(h.sum(), leaves)):
        assert tensor.transpose(1, 2).is_contiguous()


@pytest.mark.usefixtures("small_layout")
def test_triton_computes_in_the_widest_dtype_of_q_k_and_v(generator):
    inputs = cast(make_inputs(generator, "random", batch=1, token=20), torch.float32)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    mixed = {**inputs, "k": inputs["k"].bfloat16()}
    widened = {**inputs, "k": mixed["k"].float()}
    results, expected = (run(operator("triton"), tensors, grad) for tensors in (mixed, widened))
    for name, tensor in expected.items():
        torch.testing.assert_close(results[name], tensor.to(results[name].dtype), rtol=0, atol=0)
    assert results["grad k"].dtype == torch.bfloat16


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_stay_finite_where_the_published_form_overflows(generator, backend, dtype):
    inputs = make_inputs(generator, "random", batch=1, token=140)
    inputs["igate"] = torch.where(torch.arange(140) < 70, -200.0, inputs["igate"])
    inputs = cast(inputs, dtype)
    grad = torch.randn(inputs["q"].shape, generator=generator).to(dtype)
    broken = run(lambda tensors: published(**tensors), cast(inputs, torch.float32), grad.float())
    assert broken["output"].isfinite().all()
    assert broken["grad fgate"].isnan().any()
    assert all(tensor.isfinite().all() for tensor in run(operator(backend), inputs, grad).values())
    assert_accurate(operator(backend), operator("reference"), inputs, grad)


@backends
@pytest.mark.parametrize("level", [-60000.0, -200.0, 200.0, 60000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_extreme_gates_are_finite(generator, backend, level, dtype):
    inputs = make_inputs(generator, "random", batch=1, head=1, token=140)
    for name in ("igate", "fgate"):
        extreme = cast({**inputs, name: torch.full_like(inputs[name], level)}, dtype)
        results = run(operator(backend), extreme, torch.ones_like(extreme["q"]))
        assert all(tensor.isfinite().all() for tensor in results.values())


def test_memory_is_linear_in_tokens(generator):
    largest, saved = {}, {}
    for token in (1024, 4096):
        inputs = cast(make_inputs(generator, "random", batch=1, head=1, token=token, dim=8), torch.float32)
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        with LargestTensor() as record, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run(operator("chunked"), inputs, torch.ones_like(inputs["q"]))
        largest[token], saved[token] = record.numel, sum(kept)
    assert largest[1024] <= 1024 * chunk_size(1024, 8)
    assert largest[4096] == 4 * largest[1024]
    assert saved[4096] == 4 * saved[1024] == 4 * 1024 * (4 * 8 + 3)


# Dynamo creates an instance of the autograd function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_without_graph_breaks(generator):
    inputs = cast(make_inputs(generator, "random", token=200), torch.float32)
    grad = torch.randn(inputs["q"].shape, generator=generator)
    # Otherwise dynamo, after other sizes, traces for dynamic sizes, which takes ten times as long.
    torch.compiler.reset()
    compiled = torch.compile(operator(), backend="aot_eager", fullgraph=True)
    errors = relative_errors(run(compiled, inputs, grad), run(operator(), inputs, grad))
    assert max(errors.values()) < 1e-5


def test_tensors_without_data(generator):
    inputs = {name: tensor.to("meta") for name, tensor in make_inputs(generator, "random", token=140).items()}
    grads = run(operator(), inputs, inputs["q"])
    assert {name: grads[f"grad {name}"].shape for name in inputs} == {n: t.shape for n, t in inputs.items()}


@backends
def test_autocast_changes_nothing(generator, backend):
    inputs = cast(make_inputs(generator, "random", batch=1, token=40), torch.float32)
    inputs |= cast({name: inputs[name] for name in "qkv"}, torch.bfloat16)
    grad = torch.randn(inputs["q"].shape, generator=generator).bfloat16()
    plain = run(operator(backend), inputs, grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(operator(backend), inputs, grad)
    # The backend `plain` has no backward pass of its own, and the test runs that of autograd under autocast.
    names = ["output"] if backend == "plain" else list(plain)
    for name, tensor in ((name, plain[name]) for name in names):
        torch.testing.assert_close(mixed[name], tensor, rtol=0, atol=0)


def test_the_error_names_all_wrong_shapes(generator):
    inputs = make_inputs(generator, "random")
    wrong = {**inputs, "k": inputs["k"][:, :, 1:], "fgate": inputs["fgate"].long()}
    with pytest.raises(
        InputError,
        match=r"k: expected shape \(2, 2, 8, 6\) .*got \(2, 2, 7, 6\).*"
        r"fgate: expected a floating dtype, got torch.int64",
    ):
        mlstm(**wrong)
    with pytest.raises(InputError, match="none empty"):
        mlstm(**{name: tensor[:, :, :0] for name, tensor in inputs.items()})


def test_an_unknown_backend_raises(generator):
    with pytest.raises(UsageError, match="one of the backends triton, chunked, plain, reference, got 'cuda'"):
        mlstm(**make_inputs(generator, "random"), backend="cuda")


@pytest.mark.parametrize(
    ("token", "dim", "chunk"),
    [
        (1, 64, 1),
        (128, 8, 128),
        (15360, 64, 64),
        (6720, 128, 120),
        (280, 256, 96),
        (320, 150, 80),
        (197, 8, 56),
    ],
)
def test_chunk_size(token, dim, chunk):
    assert chunk_size(token, dim) == chunk
