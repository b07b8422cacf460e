"""A short path around custom operators, for calls that nothing traces.

A call of a `torch.library` custom operator takes 50 to 150 us on the host, more than most kernels take on the GPU. Only
`torch.compile`, `torch.export`, dispatch modes and function transforms need it. Other calls run the operator's body
directly, under an `autograd.Function` if a gradient is needed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scanseg.ops._support.graph_operator import run_directly

_PLAIN = frozenset((Tensor, torch.nn.Parameter))


def short_path(
    operator: Any,
    keep: Callable[..., None] | None = None,
    gradients: Callable[..., Any] | None = None,
    *,
    body: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return a function that calls an operator directly unless it is traced.

    Args:
        operator: The custom operator. Its body has no autograd of its own.
        keep: Its `setup_context`. `None`: the operator has no gradient.
        gradients: Its backward function.
        body: The computation outside of tracing. `None`: that of the operator.
    """
    run_directly(operator)
    body = operator._init_fn if body is None else body
    function = None if keep is None or gradients is None else _function(body, keep, gradients)

    def call(*inputs: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling() or is_traced(*inputs):
            return operator(*inputs, **options)  # AOTAutograd replaces it by its twin
        if function is not None and torch.is_grad_enabled() and _needs_gradient(inputs):
            return function.apply(*inputs, options)
        return body(*inputs, **options)

    return call


def _function(
    body: Callable[..., Any], keep: Callable[..., None], gradients: Callable[..., Any]
) -> type[torch.autograd.Function]:
    class Direct(torch.autograd.Function):
        """The operator's body with the gradients of the custom operator."""

        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            inputs, options = arguments[:-1], arguments[-1]
            output = body(*inputs, **options)
            if options:
                keep(ctx, inputs, options, output)
            else:
                keep(ctx, inputs, output)
            return output

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Any) -> Any:
            return *gradients(ctx, *grads), None

    return Direct


def is_traced(*inputs: Any) -> bool:
    """Return whether a mode, transform or tensor type intercepts a call."""
    if (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    ):
        return True
    return any(isinstance(value, Tensor) and type(value) not in _PLAIN for value in inputs)


def _needs_gradient(inputs: tuple[Any, ...]) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
