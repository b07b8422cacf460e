"""Accuracy of operators: relative errors of outputs and gradients against the float64 reference."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Inputs = Mapping[str, Tensor]
Operator = Callable[[Inputs], Tensor]


def run(operator: Operator, inputs: Inputs, grad_output: Tensor) -> dict[str, Tensor]:
    """Return the output and the gradient of every input, by name."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    output = operator(leaves)
    grads = torch.autograd.grad(output, list(leaves.values()), grad_output.to(output.dtype))
    return {
        "output": output.detach(),
        **{f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)},
    }


def cast(inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def relative_errors(results: Inputs, truth: Inputs) -> dict[str, float]:
    """Return ||y - y64|| / ||y64|| by name.

    A gradient that vanishes by an invariance is pure rounding (h does not change when the gates scale numerator and
    denominator alike). It is measured against a hundredth of the largest gradient instead.
    """
    norms = {name: tensor.double().norm().item() for name, tensor in truth.items()}
    largest_grad = max(norm for name, norm in norms.items() if name != "output")
    errors = {}
    for name, tensor in truth.items():
        scale = norms[name] if name == "output" else max(norms[name], 1e-2 * largest_grad)
        difference = (results[name].double() - tensor.double()).norm().item()
        errors[name] = difference / scale if scale > 0 else difference
    return errors


def bound(name: str, dtype: torch.dtype, reference_error: float) -> float:
    """Return the error bound of an output or a gradient (CONVENTIONS, "Tests")."""
    eps = torch.finfo(dtype).eps
    is_output = name == "output"
    if dtype == torch.float32:
        return 2 * reference_error + 128 * eps if is_output else 3 * reference_error + 256 * eps
    return (2 if is_output else 3) * reference_error + eps / 2


def assert_accurate(
    operator: Operator,
    reference: Operator,
    inputs: Inputs,
    grad_output: Tensor,
    *,
    gradient_slack: float = 1.0,
) -> None:
    """Compare `operator` on `inputs` (in the dtype to test) with the float64 reference on the same numbers.

    `gradient_slack` is a factor on the bounds of gradients.
    """
    truth = run(reference, cast(inputs, torch.float64), grad_output.double())
    results = run(operator, inputs, grad_output)
    single = run(reference, cast(inputs, torch.float32), grad_output.float())
    rounded = {name: tensor.to(results[name].dtype) for name, tensor in single.items()}
    errors, reference_errors = relative_errors(results, truth), relative_errors(rounded, truth)
    bounds = {
        name: bound(name, results[name].dtype, reference_errors[name])
        * (1.0 if name == "output" else gradient_slack)
        for name in errors
    }
    exceeded = {name: (error, bounds[name]) for name, error in errors.items() if not error <= bounds[name]}
    assert not exceeded, f"relative errors and their bounds: {exceeded}"


def kept_bytes(function, inputs):
    """Return the bytes of each tensor that a call keeps for gradients, beside its inputs and its result."""
    kept = []
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda each: each
    ):
        result = function(leaves)
    known = {tensor.data_ptr() for tensor in (*leaves.values(), result)}
    return [tensor.nbytes for tensor in kept if tensor.data_ptr() not in known and tensor.numel()]


def poisoned(tensor: Tensor) -> Tensor:
    """Return the same numbers as a non-contiguous view into memory full of NaN."""
    memory = torch.full([2 * size + 1 for size in tensor.shape], torch.nan, dtype=tensor.dtype)
    view = memory[tuple(slice(1, None, 2) for _ in tensor.shape)]
    view.copy_(tensor)
    return view


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that an operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple | list) else [result]
        self.numel = max([self.numel, *(tensor.numel() for tensor in results if isinstance(tensor, Tensor))])
        return result
