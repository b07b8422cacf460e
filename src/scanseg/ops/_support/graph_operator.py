"""Twins of custom operators that cost less per call in compiled graphs.

A call of a custom operator passes Python code for autograd and for checks of its results. A compiled graph needs
neither, because AOTAutograd has split forward and backward before. So graphs contain a twin with the body alone.
"""

from collections.abc import Callable
from typing import Any

import torch

from scanseg.ops._support.dispatch import is_exporting
from scanseg.ops._support.triton import INTERPRETED


def run_directly(operator: Any, body: Callable[..., Any] | None = None) -> Any:
    """Register the twin of a custom operator for compiled graphs.

    Args:
        operator: The custom operator, with its fake registered.
        body: Computation of the twin, which must not return views of inputs or of each other. `None`: that of the
            operator.

    Returns:
        The twin, `scanseg::NAME_body`.
    """
    from torch._subclasses.functional_tensor import FunctionalTensorMode

    library, name = operator._lib, f"{operator._name}_body"
    library.define(name + operator._schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, body or operator._init_fn, "CUDA")
    if INTERPRETED:
        library.impl(name, body or operator._init_fn, "CPU")
    library._register_fake(name, operator._abstract_fn)
    twin = getattr(torch.ops.scanseg, name).default

    def replace(mode: Any, op: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if is_exporting():
            return mode.__torch_dispatch__(op, types, args, kwargs)
        with mode:
            return twin(*args, **(kwargs or {}))

    operator.register_torch_dispatch(FunctionalTensorMode, replace)
    return twin
