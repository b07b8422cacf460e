"""Branches of a block as one operator each: accuracy, gradients, refusals, and launches."""

import sys

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from scanseg.errors import InputError, UsageError
from scanseg.ops import BranchStart, feed_forward, ss2d_branch
from scanseg.ops._support import accepted_calls
from scanseg.ops.ss2d_branch import triton_backend as ss2d_code

from .precision import cast, poisoned, relative_errors, run

DIM, RANK, HIDDEN = 16, 2, 24

ss2d_package = sys.modules["scanseg.ops.ss2d_branch"]
"""The package, whose name in `scanseg.ops` is that of its function."""


def scan_inputs(generator, *, state=1, size=(5, 7), added=True):
    def noise(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    return start_inputs(generator, (2, DIM, *size), added=added) | {
        "in_weight": noise(DIM, DIM, scale=0.2),
        "conv_weight": noise(DIM, 1, 3, 3, scale=0.3),
        "x_weight": noise(4, RANK + 2 * state, DIM, scale=0.2),
        "dt_weight": noise(4, DIM, RANK),
        "dt_bias": noise(4, DIM) - 3,
        "A_log": noise(4, DIM, state, scale=0.3),
        "D_skip": noise(4, DIM),
        "norm_weight": noise(DIM),
        "norm_bias": noise(DIM),
        "out_weight": noise(DIM, DIM, scale=0.2),
    }


def start_inputs(generator, shape, *, added):
    """Inputs of the start. Their names are those of `BranchStart`, with a prefix."""
    names = {"x": shape, "norm_weight": shape[1:2], "norm_bias": shape[1:2]} | (
        {"added": shape} if added else {}
    )
    return {f"start {name}": torch.randn(size, generator=generator) for name, size in names.items()}


def split(inputs, sample_scale=None):
    """Return the start and the other inputs."""
    parts = {name[6:]: tensor for name, tensor in inputs.items() if name.startswith("start ")}
    scale = None if sample_scale is None else sample_scale.to(parts["x"].device)
    others = {name: tensor for name, tensor in inputs.items() if not name.startswith("start ")}
    return BranchStart(**parts, sample_scale=scale), others


def scan_branch(backend, sample_scale=None, **options):
    def operator(inputs):
        start, others = split(inputs, sample_scale)
        return torch.cat(ss2d_branch(start, **others, backend=backend, **options), 1)

    return operator


def mixing_inputs(generator, sizes):
    shapes = {"weight1": (HIDDEN, DIM), "bias1": (HIDDEN,), "weight2": (DIM, HIDDEN)}
    shapes |= {"bias2": (DIM,)} | {f"kernel {size}": (HIDDEN, 1, size, size) for size in sizes}
    noise = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    return start_inputs(generator, (2, DIM, 4, 5), added=True) | noise


def mixing_branch(backend, sample_scale=None, **options):
    def operator(inputs):
        start, others = split(inputs, sample_scale)
        named = {name: tensor for name, tensor in others.items() if not name.startswith("kernel")}
        kernels = [tensor for name, tensor in others.items() if name.startswith("kernel")]
        return torch.cat(feed_forward(start, **named, kernels=kernels, backend=backend, **options), 1)

    return operator


BRANCHES = {
    "scan": (scan_branch, scan_inputs),
    "scan-of-the-map": (scan_branch, lambda generator: scan_inputs(generator, added=False)),
    "large-state": (scan_branch, lambda generator: scan_inputs(generator, state=3)),
    "plain": (mixing_branch, lambda generator: mixing_inputs(generator, ())),
    "multi-scale": (mixing_branch, lambda generator: mixing_inputs(generator, (1, 3, 5))),
}
SCALE = torch.tensor([0.0, 1.25])
"""Factors of stochastic depth."""


@pytest.fixture(params=BRANCHES)
def branch_and_inputs(request, generator):
    branch, make = BRANCHES[request.param]
    return branch, make(generator)


def result_gradient(inputs, generator):
    batch, dim, *size = inputs["start x"].shape
    return torch.randn((batch, 2 * dim, *size), generator=generator)


def assert_as_accurate_as_the_parts(results, parts, truth, dtype):
    """Errors against float64 may be twice those of the parts, computed in the same dtype.

    On the CPU the parts round less often in bfloat16: the gradient of A_log has 0.004 there, and 0.022 by the kernels.
    """
    errors, others = relative_errors(results, truth), relative_errors(parts, truth)
    eps = torch.finfo(dtype).eps
    slack = 256 * eps if dtype == torch.float32 else (eps if results["output"].is_cuda else 3 * eps)
    exceeded = {
        name: (error, others[name]) for name, error in errors.items() if not error <= 2 * others[name] + slack
    }
    assert not exceeded, f"relative errors, and those of the parts: {exceeded}"


@pytest.mark.parametrize(
    ("scale", "dtype"), [(None, torch.float32), (SCALE, torch.bfloat16)], ids=["float32", "scaled-bfloat16"]
)
def test_is_accurate(generator, branch_and_inputs, scale, dtype):
    branch, inputs = branch_and_inputs
    if scale is not None and "start added" not in inputs:
        scale = None
    grad = result_gradient(inputs, generator)
    # PyTorch's norm of a float32 map takes no 16-bit parameters on the CPU.
    rounded = {name: tensor if "norm_" in name else tensor.to(dtype) for name, tensor in inputs.items()}
    rounded["start x"] = inputs["start x"]
    options = {"sample_scale": scale, "dtype": dtype}
    truth = run(branch("composed", scale, dtype=torch.float64), cast(rounded, torch.float64), grad)
    parts = run(branch("composed", **options), rounded, grad)
    scattered = {name: poisoned(tensor) for name, tensor in rounded.items()}
    results = run(branch("triton", **options), scattered, grad)
    assert_as_accurate_as_the_parts(results, parts, truth, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_gpu_under_autocast(generator, branch_and_inputs, dtype):
    """Parameters stay in float32, as in a training."""
    torch.backends.cuda.matmul.allow_tf32 = False
    branch, inputs = branch_and_inputs
    inputs = {name: tensor.cuda() for name, tensor in inputs.items()}
    grad = result_gradient(inputs, generator).cuda()
    truth = run(branch("composed", dtype=torch.float64), cast(inputs, torch.float64), grad)

    def under_autocast(backend):
        def operator(leaves):
            with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
                return branch(backend, dtype=dtype)(leaves)

        return run(operator, inputs, grad)

    assert_as_accurate_as_the_parts(under_autocast("triton"), under_autocast("composed"), truth, dtype)


def test_without_gradients_the_result_is_the_same(branch_and_inputs):
    branch, inputs = branch_and_inputs
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    assert torch.equal(branch("triton")(leaves), branch("triton")(inputs))


def test_a_branch_without_a_norm_before_it_takes_the_map(generator):
    inputs = mixing_inputs(generator, (3,))
    inputs = {
        name: tensor for name, tensor in inputs.items() if not name.startswith("start ") or name == "start x"
    }
    grad = result_gradient(inputs, generator)
    results = run(mixing_branch("triton"), inputs, grad)
    expected = run(mixing_branch("composed"), inputs, grad)
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("used", [0, 1], ids=["sum", "branch"])
def test_either_result_may_be_unused(generator, used):
    inputs = mixing_inputs(generator, ())

    def gradients(backend):
        start, others = split({name: tensor.clone().requires_grad_() for name, tensor in inputs.items()})
        results = feed_forward(start, **others, backend=backend)
        leaves = [start.x, start.added, start.norm_weight, others["weight1"]]
        found = torch.autograd.grad(results[used].square().sum(), leaves, allow_unused=True)
        return [
            torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)
        ]

    torch.testing.assert_close(gradients("triton"), gradients("composed"), rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_are_refused(generator):
    inputs = {name: tensor.requires_grad_() for name, tensor in scan_inputs(generator).items()}
    result = scan_branch("triton")(inputs).square().sum()
    gradient = torch.autograd.grad(result, inputs["start x"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ["scan", "plain"])
def test_traced_calls_are_left_to_the_parts(generator, name):
    branch, make = BRANCHES[name]
    with torch._subclasses.FakeTensorMode() as mode:
        inputs = {name: mode.from_tensor(tensor) for name, tensor in make(generator).items()}
        with pytest.raises(UsageError, match="outside of tracing"):
            branch("triton")(inputs)
        assert branch(None)(inputs).shape == result_gradient(inputs, generator).shape


def compiled_operators(operator, inputs, grad):
    """Return the results under `torch.compile`, and the names of this package's operators in the graphs."""
    names = []

    def note(graph, example):
        names.extend(str(node.target) for node in graph.graph.nodes if "scanseg" in str(node.target))
        return make_boxed_func(graph)

    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=note, bw_compiler=note)
    results = run(torch.compile(operator, backend=backend, fullgraph=True), inputs, grad)
    return results, names


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("scan", torch.bfloat16),
        ("scan-of-the-map", torch.float32),
        ("plain", torch.float32),
        ("multi-scale", torch.bfloat16),
        pytest.param("large-state", torch.float32, marks=pytest.mark.slow),  # more code in the interpreter
    ],
)
def test_a_compiled_graph_has_one_operator_for_each_pass(generator, name, dtype):
    branch, make = BRANCHES[name]
    inputs = make(generator)
    grad = result_gradient(inputs, generator)
    operator = branch("triton", SCALE if "start added" in inputs else None, dtype=dtype)
    results, names = compiled_operators(operator, inputs, grad)
    kind = "ss2d_branch" if branch is scan_branch else "feed_forward"
    assert names == [f"scanseg.{kind}_body.default", f"scanseg.{kind}_backward_body.default"]
    for name, expected in run(operator, inputs, grad).items():
        assert torch.equal(results[name], expected), name


def test_a_new_batch_size_compiles_once_more(generator):
    """The first compilation is for one size, the second one for all."""
    inputs, counter = mixing_inputs(generator, (3,)), CompileCounterWithBackend("aot_eager")
    torch.compiler.reset()
    operator = torch.compile(mixing_branch("triton"), backend=counter, fullgraph=True)
    for batch in (2, 3, 4, 5):
        sized = {
            name: torch.randn((batch, *tensor.shape[1:]), generator=generator) if tensor.ndim == 4 else tensor
            for name, tensor in inputs.items()
            if not name.startswith("kernel")
        }
        kernels = {name: tensor for name, tensor in inputs.items() if name.startswith("kernel")}
        results = operator(sized | kernels)
        torch.testing.assert_close(results, mixing_branch("triton")(sized | kernels))
    assert counter.frame_count == 2


@pytest.mark.parametrize("added", [False, True])
def test_operators_of_graphs_pass_opcheck(generator, added):
    start, others = split(scan_inputs(generator, added=added, size=(2, 3)))
    parameters = [tensor.requires_grad_() for tensor in others.values()]
    arguments = (*start, parameters, 1e-5, torch.float32, True)
    # Compiled graphs are tested above. With one segment, the states between segments are not written.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(ss2d_code._BRANCH.in_graph, arguments, test_utils=tests)


def test_a_repeated_call_is_not_checked_again(generator, monkeypatch):
    inputs = scan_inputs(generator)
    expected = scan_branch("triton")(inputs)
    monkeypatch.setattr(accepted_calls, "_chosen", {})
    checks = []
    original = accepted_calls.remember
    monkeypatch.setattr(
        ss2d_package,
        "remember",
        lambda *given, **options: (checks.append(given), original(*given, **options)),
    )
    for _ in range(3):
        assert torch.equal(scan_branch("triton")(inputs), expected)
    assert len(checks) == 1
    with pytest.raises(InputError, match="D_skip"):
        scan_branch("triton")(inputs | {"D_skip": torch.ones(4, 3)})


def test_wrong_shapes_are_refused(generator):
    with pytest.raises(InputError, match=r"ss2d_branch: out_weight: expected shape \(16, 16\)"):
        scan_branch(None)(scan_inputs(generator) | {"out_weight": torch.ones(3, 16)})
    with pytest.raises(InputError, match=r"feed_forward: added: expected shape \(2, 16, 4, 5\)"):
        mixing_branch(None)(mixing_inputs(generator, ()) | {"start added": torch.ones(3)})
