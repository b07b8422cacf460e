"""Recomputation of large maps in the backward pass, to save memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

SMALLEST_BYTES = 2**26
"""Smallest map that is recomputed, in bytes (64 MiB). For a smaller one the memory is not worth a pass."""


def recompute_between(
    x: Tensor, first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compute `then(first(x))` and recompute a large map between the two.

    For gradients, a large result of `first` is recomputed from `x` instead of kept. Small maps are kept. On the CPU
    every map is kept, because PyTorch's norm keeps its result too. Under `torch.compile` every map is kept, because
    the compiler decides by itself.

    Args:
        x: A map that is kept anyway.
        first: A cheap function that keeps its argument and not its result, such as a norm with activation.
        then: A function that keeps its argument, such as a convolution.
    """
    y = first(x)
    if not torch.is_grad_enabled() or not _should_recompute(y):
        return then(y)
    storage, dtype, kept = y.untyped_storage()._cdata, y.dtype, x.detach()

    def pack(tensor: Tensor) -> Any:
        if tensor.untyped_storage()._cdata != storage or tensor.dtype != dtype:
            return tensor
        return _View(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def unpack(packed: Any) -> Tensor:
        return first(kept).as_strided(*packed) if isinstance(packed, _View) else packed

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return then(y)


def _should_recompute(y: Tensor) -> bool:
    """Return whether a map is large enough to recompute."""
    return y.is_cuda and y.nbytes >= SMALLEST_BYTES and not torch.compiler.is_compiling()


class _View(NamedTuple):
    """Shape and position of a view of a recomputed map."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
