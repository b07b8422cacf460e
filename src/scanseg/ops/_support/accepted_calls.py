"""Backends of calls that have passed their checks before.

A branch takes fifteen tensors. Checking them and choosing a backend takes longer than launching the branch, and a loop
repeats the same shapes, dtypes and devices. Norms take fewer tensors, but a network calls them dozens of times.
"""

import torch
from torch import Tensor

from scanseg.ops._support.dispatch import Backend, is_settled
from scanseg.ops._support.eager import is_traced

MOST_CALLS = 1024
"""Number of remembered calls after which all are forgotten. A network has a few dozen."""

Signature = tuple[object, ...]

_chosen: dict[Signature, Backend] = {}


def signature_of(operator: object, backend: str | None, *tensors: Tensor | None) -> Signature | None:
    """Return the shapes, dtypes and devices of a call.

    Args:
        operator: Name of the operator, with the settings that its checks read.
        backend: Name of the requested backend.
        *tensors: All tensors of the call, in a fixed order.

    Returns:
        A key of the calls with the same checks, or `None` for a traced call.
    """
    if torch.compiler.is_compiling() or is_traced(*tensors):
        return None
    # Kernels are checked in the dtype of autocast, too.
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    parts: list[object] = [operator, backend, autocast]
    for tensor in tensors:
        if tensor is None:
            parts.append(None)
        else:
            parts += (tensor.shape, tensor.dtype, tensor.device)
    return tuple(parts)


def recall(signature: Signature | None) -> Backend | None:
    """Return the backend of an earlier call with this signature."""
    return None if signature is None else _chosen.get(signature)


def remember(signature: Signature | None, backend: Backend, *, operator: str, first: object) -> None:
    """Note the backend of a call that has passed its checks.

    A backend that was chosen before the check of its kernels is not noted.

    Args:
        signature: The key of the call.
        backend: The chosen backend.
        operator: Name of the operator.
        first: First tensor of the call, or a value that holds it.
    """
    if signature is None or not is_settled(operator, first):
        return
    if len(_chosen) >= MOST_CALLS:
        _chosen.clear()
    _chosen[signature] = backend


def forget() -> None:
    """Forget all calls, because the verdicts about kernels have changed."""
    _chosen.clear()
