"""The selective scan and its four-direction form: every backend against the float64 recurrence."""

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from scanseg.errors import InputError, UsageError
from scanseg.ops._support.recurrence import recurrence_operator, solve_recurrence_
from scanseg.ops.selective_scan import BACKENDS, selective_scan
from scanseg.ops.ss2d import BACKENDS as SS2D_BACKENDS
from scanseg.ops.ss2d import ss2d_scan

from .precision import LargestTensor, assert_accurate, cast, poisoned, relative_errors, run

GATES = ("random", "near one", "saturated")
backends = pytest.mark.parametrize("backend", BACKENDS)
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
# In the interpreter a call of the Triton kernels takes seconds; their segments have 32 tokens.
FEW_SIZES = {"reference": [(1, 1), (1, 2)], "triton": [(1, 1), (3, 11)]}
SIZES = [(1, 1), (1, 2), (1, 7), (8, 1), (3, 3), (7, 8), (7, 9), (8, 8), (13, 5), (16, 8), (1, 97)]


def step_sizes(gates, shape, generator):
    """Make step sizes before softplus.

    The decays exp(-delta) are anywhere, within 1e-3 of one, or within rounding of zero or one.
    """
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    return {"random": normal, "near one": normal - 8, "saturated": 30 * normal.sign() + normal}[gates]


def scan_inputs(generator, gates, *, batch=2, group=2, dim=3, state=2, token=8):
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    return {
        "u": normal(batch, group, dim, token),
        "delta": F.softplus(step_sizes(gates, (batch, group, dim, token), generator)),
        "A": -torch.exp(normal(group, dim, state)),
        "B": normal(batch, group, state, token),
        "C": normal(batch, group, state, token),
        "D": normal(group, dim),
    }


def map_inputs(generator, gates, *, batch=2, dim=5, rank=2, state=1, size=(4, 5)):
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    return {
        "x": normal(batch, dim, *size),
        "projected": normal(batch, 4, rank + 2 * state, *size),
        "dt_weight": normal(4, dim, rank) / 2,
        "dt_bias": step_sizes(gates, (4, dim), generator),
        "A_log": 0.3 * normal(4, dim, state),
        "D_skip": normal(4, dim),
    }


def scan(backend=None, *, reverse=False):
    return lambda inputs: selective_scan(**inputs, reverse=reverse, backend=backend)


def scan_map(backend=None):
    return lambda inputs: ss2d_scan(**inputs, backend=backend)


OPERATORS = pytest.mark.parametrize(
    ("operator", "make_inputs"), [(scan, scan_inputs), (scan_map, map_inputs)], ids=["scan", "map"]
)
CASES = [
    *((scan, scan_inputs, name) for name in BACKENDS),
    *((scan_map, map_inputs, name) for name in SS2D_BACKENDS),
]
CASE_NAMES = [*(f"scan-{name}" for name in BACKENDS), *(f"map-{name}" for name in SS2D_BACKENDS)]
EVERY_BACKEND = pytest.mark.parametrize(("operator", "make_inputs", "backend"), CASES, ids=CASE_NAMES)


def grad_for(inputs, generator):
    first = next(iter(inputs.values()))
    return torch.randn(first.shape, generator=generator, dtype=torch.float64).to(first.dtype)


@pytest.mark.parametrize("token", [1, 2, 3, 4, 5, 31, 32, 33, 97])
@pytest.mark.parametrize("reverse", [[False], [True], [False, True], [True, False]])
@pytest.mark.parametrize("adjoint", [False, True])
def test_recurrence(generator, token, reverse, adjoint):
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    decay, values = normal(len(reverse), 3, token, 1).tanh(), normal(len(reverse), 3, token, 2)
    expected = values.clone()
    for index, is_reverse in enumerate(reverse):
        order = list(range(token))[:: -1 if is_reverse != adjoint else 1]
        for previous, t in pairwise(order):
            factor = decay[index, :, previous if adjoint else t]
            expected[index, :, t] += factor * expected[index, :, previous]
    solve_recurrence_(decay, values, reverse, adjoint)
    torch.testing.assert_close(values, expected)


def test_recurrence_passes_opcheck(generator):
    decay, values = torch.rand(2, 3, 9, 1, generator=generator), torch.rand(2, 3, 9, 2, generator=generator)
    torch.library.opcheck(recurrence_operator, (decay, values, [False, True], False))


@pytest.mark.parametrize(
    ("backend", "token"),
    [
        (name, token)
        for name in BACKENDS
        for token in (1, 2, 31, 32, 33, 97)
        if name != "reference" or token < 3
    ],
)
@directions
@pytest.mark.parametrize("gates", GATES)
def test_scan_float32_accuracy(generator, backend, gates, token, reverse):
    inputs = cast(scan_inputs(generator, gates, token=token), torch.float32)
    operator, reference = scan(backend, reverse=reverse), scan("reference", reverse=reverse)
    assert_accurate(operator, reference, inputs, grad_for(inputs, generator))


@pytest.mark.parametrize(
    ("backend", "size"),
    [(name, size) for name in SS2D_BACKENDS for size in FEW_SIZES.get(name, SIZES)],
    ids=str,
)
@pytest.mark.parametrize("gates", GATES)
def test_map_float32_accuracy(generator, backend, gates, size):
    inputs = cast(map_inputs(generator, gates, size=size), torch.float32)
    assert_accurate(scan_map(backend), scan_map("reference"), inputs, grad_for(inputs, generator))


@EVERY_BACKEND
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_accuracy(generator, operator, make_inputs, backend, gates, dtype):
    inputs = cast(make_inputs(generator, gates), dtype)
    assert_accurate(operator(backend), operator("reference"), inputs, grad_for(inputs, generator))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@EVERY_BACKEND
def test_result_dtype(generator, operator, make_inputs, backend, dtype):
    expected = torch.promote_types(dtype, torch.float32) if operator is scan_map else dtype
    assert operator(backend)(cast(make_inputs(generator, "random"), dtype)).dtype == expected


@EVERY_BACKEND
def test_sixteen_states(generator, operator, make_inputs, backend):
    inputs = cast(make_inputs(generator, "random", state=16, batch=1), torch.float32)
    assert_accurate(operator(backend), operator("reference"), inputs, grad_for(inputs, generator))


@backends
def test_skip_is_optional(generator, backend):
    inputs = scan_inputs(generator, "random")
    without = {name: tensor for name, tensor in inputs.items() if name != "D"}
    expected = scan(backend)(inputs) - inputs["D"][..., None] * inputs["u"]
    torch.testing.assert_close(scan(backend)(without), expected)


@EVERY_BACKEND
def test_strided_inputs_in_poisoned_memory(generator, operator, make_inputs, backend):
    inputs = make_inputs(generator, "random")
    grad = grad_for(inputs, generator)
    strided = {name: poisoned(tensor) for name, tensor in inputs.items()}
    expected = run(operator(backend), inputs, grad)
    assert max(relative_errors(run(operator(backend), strided, poisoned(grad)), expected).values()) < 1e-12


@pytest.mark.parametrize(
    ("operator", "make_inputs", "backend"),
    # Autograd computes the gradients of the reference.
    [case for case in CASES if case[2] != "reference"],
    ids=[name for name in CASE_NAMES if not name.endswith("reference")],
)
def test_gradcheck(generator, operator, make_inputs, backend):
    inputs = make_inputs(generator, "random", batch=1, dim=2, state=2)
    function = operator(backend)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *args: function(dict(zip(inputs, args, strict=True))), tensors, fast_mode=backend == "triton"
    )


def test_triton_operators_pass_opcheck(generator):
    inputs = cast(map_inputs(generator, "random", batch=1, dim=3, size=(3, 11)), torch.float32)
    order = ("x", "projected", "dt_weight", "dt_bias", "A_log", "D_skip")
    torch.library.opcheck(
        torch.ops.scanseg.ss2d_scan_triton.default, tuple(inputs[name].requires_grad_() for name in order)
    )


def test_triton_kernels_on_three_segments_repeat_bit_by_bit(generator):
    inputs = cast(map_inputs(generator, "random", batch=1, size=(13, 5)), torch.float32)
    grad = grad_for(inputs, generator)
    assert_accurate(scan_map("triton"), scan_map("reference"), inputs, grad)
    first, second = (run(scan_map("triton"), inputs, grad) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


# Dynamo creates an instance of the autograd function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@OPERATORS
def test_compiles_without_graph_breaks(generator, operator, make_inputs):
    inputs = cast(make_inputs(generator, "random"), torch.float32)
    grad = grad_for(inputs, generator)
    torch.compiler.reset()
    compiled = torch.compile(operator(), backend="aot_eager", fullgraph=True)
    errors = relative_errors(run(compiled, inputs, grad), run(operator(), inputs, grad))
    assert max(errors.values()) < 1e-5


@OPERATORS
def test_tensors_without_data(generator, operator, make_inputs):
    inputs = {name: tensor.to("meta") for name, tensor in make_inputs(generator, "random").items()}
    grads = run(operator(), inputs, next(iter(inputs.values())))
    assert {name: grads[f"grad {name}"].shape for name in inputs} == {n: t.shape for n, t in inputs.items()}


@EVERY_BACKEND
def test_autocast_changes_nothing(generator, operator, make_inputs, backend):
    inputs = cast(make_inputs(generator, "random"), torch.float32)
    first = next(iter(inputs))
    inputs[first] = inputs[first].bfloat16()
    grad = grad_for(inputs, generator)
    plain = run(operator(backend), inputs, grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(operator(backend), inputs, grad)
    # The backend `plain` has no backward pass of its own, and the test runs that of autograd under autocast.
    names = ["output"] if backend == "plain" else list(plain)
    for name, tensor in ((name, plain[name]) for name in names):
        torch.testing.assert_close(mixed[name], tensor, rtol=0, atol=0)


def test_memory_is_linear_in_tokens(generator):
    inputs = cast(map_inputs(generator, "random", batch=1, dim=4, size=(40, 50)), torch.float32)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with LargestTensor() as record, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(scan_map("chunked"), inputs, torch.ones_like(inputs["x"]))
    assert record.numel <= 4 * 4 * 40 * 50
    assert sum(tensor.numel() for tensor in kept) == sum(tensor.numel() for tensor in inputs.values())


def test_the_error_names_all_wrong_shapes(generator):
    inputs = map_inputs(generator, "random")
    wrong = {**inputs, "projected": inputs["projected"][:, :3], "dt_bias": inputs["dt_bias"][:, 1:]}
    message = (
        r"projected: expected shape \(2, 4, 4, 4, 5\) .*got \(2, 3, 4, 4, 5\).*"
        r"dt_bias: expected shape .*got \(4, 4\)"
    )
    with pytest.raises(InputError, match=message):
        scan_map()(wrong)
    sequences = scan_inputs(generator, "random")
    with pytest.raises(InputError, match=r"C: expected shape \(2, 2, 2, 8\) .*got \(2, 2, 1, 8\)"):
        scan()({**sequences, "C": sequences["C"][:, :, 1:]})
    with pytest.raises(InputError, match=r"u: expected the axes \(batch group dim token\), none empty"):
        scan()({**sequences, "u": sequences["u"][0]})


@OPERATORS
def test_an_unknown_backend_raises(generator, operator, make_inputs):
    with pytest.raises(UsageError, match=r"one of the backends .*chunked, plain, reference, got 'fast'"):
        operator("fast")(make_inputs(generator, "random"))
