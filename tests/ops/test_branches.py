"""Branches of a block as one operator each: accuracy, gradients, refusals, and launches."""

import pytest
import torch

from scanseg.errors import InputError, UsageError
from scanseg.ops import feed_forward, ss2d_branch

from .precision import cast, poisoned, relative_errors, run

DIM, RANK, HIDDEN = 24, 2, 40
KERNELS = {"plain": (), "multi-scale": (1, 3, 5)}


def scan_inputs(generator, *, state=1, size=(7, 5)):
    def noise(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    return {
        "x": noise(2, DIM, *size),
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


def scan_branch(backend):
    return lambda inputs: ss2d_branch(**inputs, backend=backend)


def mixing_inputs(generator, sizes):
    shapes = {"x": (2, DIM, 6, 5), "weight1": (HIDDEN, DIM), "bias1": (HIDDEN,), "weight2": (DIM, HIDDEN)}
    shapes |= {"bias2": (DIM,)} | {f"kernel {size}": (HIDDEN, 1, size, size) for size in sizes}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def mixing_branch(backend):
    def operator(inputs):
        named = {name: tensor for name, tensor in inputs.items() if not name.startswith("kernel")}
        kernels = [tensor for name, tensor in inputs.items() if name.startswith("kernel")]
        return feed_forward(**named, kernels=kernels, backend=backend)

    return operator


def check(branch, inputs, generator, dtype):
    """Compare with float64. Errors may be twice those of the parts, in the same dtype."""
    grad = torch.randn(inputs["x"].shape, generator=generator)
    # PyTorch's norm of a float32 map takes no 16-bit parameters on the CPU.
    rounded = {name: tensor if "norm" in name else tensor.to(dtype) for name, tensor in inputs.items()}
    truth = run(branch("composed"), cast(rounded, torch.float64), grad)
    parts = relative_errors(run(branch("composed"), rounded, grad), truth)
    scattered = {name: poisoned(tensor) for name, tensor in rounded.items()}
    errors = relative_errors(run(branch("triton"), scattered, grad), truth)
    eps = torch.finfo(dtype).eps
    slack = 256 * eps if dtype == torch.float32 else eps / 2
    for name, error in errors.items():
        assert error <= 2 * parts[name] + slack, (name, error, parts[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", [1, 3])
def test_scan_branch_is_accurate(generator, state, dtype):
    check(scan_branch, scan_inputs(generator, state=state), generator, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", KERNELS.values(), ids=KERNELS)
def test_feed_forward_is_accurate(generator, sizes, dtype):
    check(mixing_branch, mixing_inputs(generator, sizes), generator, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("branch", ["scan", "plain", "multi-scale"])
def test_branches_on_a_gpu_under_autocast(generator, branch, dtype):
    """Parameters stay in float32, as in a training."""
    torch.backends.cuda.matmul.allow_tf32 = False
    make = scan_branch if branch == "scan" else mixing_branch
    inputs = (
        scan_inputs(generator, size=(20, 13))
        if branch == "scan"
        else mixing_inputs(generator, KERNELS[branch])
    )
    inputs = {name: tensor.cuda() for name, tensor in inputs.items()}
    grad = torch.randn(inputs["x"].shape, generator=generator).cuda()
    truth = run(make("composed"), cast(inputs, torch.float64), grad)
    options = {} if dtype == torch.float32 else {"dtype": dtype}

    def under_autocast(backend):
        def operator(leaves):
            with torch.autocast("cuda", dtype=dtype, enabled=bool(options)):
                return make(backend)(leaves | options)

        return operator

    parts = relative_errors(run(under_autocast("composed"), inputs, grad), truth)
    errors = relative_errors(run(under_autocast("triton"), inputs, grad), truth)
    eps = torch.finfo(dtype).eps
    slack = 256 * eps if dtype == torch.float32 else eps
    for name, error in errors.items():
        assert error <= 2 * parts[name] + slack, (name, error, parts[name])


@pytest.mark.parametrize("branch", ["scan", "plain", "multi-scale"])
def test_without_gradients_the_result_is_the_same(generator, branch):
    if branch == "scan":
        operator, inputs = scan_branch("triton"), scan_inputs(generator)
    else:
        operator, inputs = mixing_branch("triton"), mixing_inputs(generator, KERNELS[branch])
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    assert torch.equal(operator(leaves), operator(inputs))


def test_gradients_of_gradients_are_refused(generator):
    inputs = {name: tensor.requires_grad_() for name, tensor in scan_inputs(generator).items()}
    gradient = torch.autograd.grad(
        scan_branch("triton")(inputs).square().sum(), inputs["x"], create_graph=True
    )[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("branch", ["scan", "plain"])
def test_traced_calls_are_left_to_the_parts(generator, branch):
    if branch == "scan":
        operator, inputs = scan_branch, scan_inputs(generator)
    else:
        operator, inputs = mixing_branch, mixing_inputs(generator, ())
    with torch._subclasses.FakeTensorMode() as mode:
        inputs = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        with pytest.raises(UsageError, match="outside of tracing"):
            operator("triton")(inputs)
        assert operator(None)(inputs).shape == inputs["x"].shape


def test_wrong_shapes_are_refused(generator):
    inputs = scan_inputs(generator)
    with pytest.raises(InputError, match=r"ss2d_branch: out_weight: expected shape \(24, 24\)"):
        ss2d_branch(**inputs | {"out_weight": torch.ones(3, 24)})
    inputs = mixing_inputs(generator, ())
    with pytest.raises(InputError, match=r"feed_forward: bias2: expected shape \(24,\)"):
        feed_forward(**inputs | {"bias2": torch.ones(3)})
