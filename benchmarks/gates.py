"""Checks before any timing, against float64.

Operators are compared with the recurrence in float64, and networks with the same network in float64. The bounds are
those of CONVENTIONS, "Operators": with r the error of the float32 reference rounded to the type,
2r + eps/2 for values and 3r + eps/2 for gradients of 16-bit types, and 2e-3 if products may be rounded to TF32.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TF32_BOUND = 2e-3
NETWORK_OUTPUT_BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Bounds of the relative L2 error of a network's logits against float64. float32 is checked with TF32 off."""
NETWORK_GRADIENT_BOUND = 3e-2
"""Bound of the relative L2 error of all gradients together in float32. Leaky ReLU kinks amplify rounding."""

Inputs = Mapping[str, Tensor]
Operator = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class GateReport:
    """Errors and their bounds, by name."""

    errors: Mapping[str, float]
    bounds: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every error is within its bound. NaN is not."""
        return all(error <= self.bounds[name] for name, error in self.errors.items())


def check_operator(
    operator: Operator, reference: Operator, inputs: Inputs, *, grad_output: Tensor, tf32: bool
) -> GateReport:
    """Compare an operator's output and gradients with a reference in float64.

    Args:
        operator: The operator to check.
        reference: Computes the same function in the dtype of its inputs.
        inputs: Inputs in the dtype to check.
        grad_output: Gradient of the output.
        tf32: Products of float32 may be rounded to TF32.
    """
    results = _run(operator, inputs, grad_output)
    truth = _run(reference, _cast(inputs, torch.float64), grad_output)
    errors = _relative_errors(results, truth)
    single = _run(reference, _cast(inputs, torch.float32), grad_output)
    # Gradients of float32 parameters beside 16-bit maps are sums of products of 16-bit numbers.
    dtype = min((tensor.dtype for tensor in inputs.values()), key=lambda dtype: dtype.itemsize)
    rounded = {name: tensor.to(dtype) for name, tensor in single.items()}
    reference_errors = _relative_errors(rounded, truth)
    bounds = {name: _bound(name, dtype, reference_errors[name], tf32=tf32) for name in errors}
    return GateReport(errors, bounds)


def _cast(inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def _run(operator: Operator, inputs: Inputs, grad_output: Tensor) -> dict[str, Tensor]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    output = operator(leaves)
    grads = torch.autograd.grad(output, list(leaves.values()), grad_output.to(output.dtype))
    return {"output": output.detach(), **{f"d {name}": g for name, g in zip(leaves, grads, strict=True)}}


def _relative_errors(results: Inputs, truth: Inputs) -> dict[str, float]:
    """Return relative errors by name.

    The error of a nearly vanishing gradient is relative to a hundredth of the largest gradient.
    """
    norms = {name: tensor.double().norm().item() for name, tensor in truth.items()}
    largest = max(norm for name, norm in norms.items() if name != "output")
    scales = {name: norm if name == "output" else max(norm, 1e-2 * largest) for name, norm in norms.items()}
    differences = {name: (results[name].double() - truth[name].double()).norm().item() for name in truth}
    return {name: error / scales[name] if scales[name] else error for name, error in differences.items()}


def _bound(name: str, dtype: torch.dtype, reference_error: float, *, tf32: bool) -> float:
    eps, is_output = torch.finfo(dtype).eps, name == "output"
    if dtype != torch.float32:
        return (2 if is_output else 3) * reference_error + eps / 2
    if tf32:
        return TF32_BOUND
    return 2 * reference_error + 128 * eps if is_output else 3 * reference_error + 256 * eps


def check_network(network: nn.Module, images: Tensor, *, autocast_dtype: torch.dtype | None) -> GateReport:
    """Compare a network's logits and gradients with the same network in float64.

    Logits and gradients are checked in float32, and logits also under autocast. Triton's operators refuse float64, so
    the reference uses the PyTorch form of every operator. The network is left in evaluation mode and float32.

    Args:
        network: A network with float32 parameters, on its device.
        images: A batch of two or more images.
        autocast_dtype: Dtype of products for a further check. `None`: check float32 alone.
    """
    network.eval()
    with _ieee_products():
        logits, gradients = _logits_and_gradients(network, images)
        true_logits, true_gradients = _logits_and_gradients(network.double(), images.double())
        network.float()
    errors = {
        "logits": _relative(logits, true_logits),
        "gradients": _relative(gradients, true_gradients),
    }
    bounds = {"logits": NETWORK_OUTPUT_BOUNDS[torch.float32], "gradients": NETWORK_GRADIENT_BOUND}
    if autocast_dtype is not None:
        name = f"logits in {str(autocast_dtype).removeprefix('torch.')}"
        with torch.no_grad(), torch.autocast(images.device.type, dtype=autocast_dtype):
            errors[name] = _relative(network(images), true_logits)
        bounds[name] = NETWORK_OUTPUT_BOUNDS[autocast_dtype]
    network.zero_grad(set_to_none=True)
    return GateReport(errors, bounds)


def _logits_and_gradients(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    network.zero_grad(set_to_none=True)
    logits = network(images)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype, device=logits.device)
    (logits.flatten() * weights).mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def _relative(result: Tensor, truth: Tensor) -> float:
    return ((result.double() - truth).norm() / truth.norm()).item()


@contextmanager
def _ieee_products() -> Iterator[None]:
    """Compute float32 products without TF32 in this block."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
