"""Maps that are made again in the backward pass, where keeping them would cost more memory than they are worth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

SMALLEST_BYTES = 2**26
"""Size of a map from which its memory is worth a pass over it: 64 MiB."""


def recompute_between(
    x: Tensor, first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return `then(first(x))`, and do not keep a large map between the two for gradients: it is made again from `x`.

    A small map is kept, and any on the CPU, where PyTorch's norm keeps its result too, and under `torch.compile`, which
    decides by itself.

    Args:
        x: A map that is kept anyway.
        first: A cheap function that keeps its argument and not its result, such as a norm with activation.
        then: A function that keeps its argument, such as a convolution.
    """
    y = first(x)
    if not torch.is_grad_enabled() or not _is_worth_it(y):
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


def _is_worth_it(y: Tensor) -> bool:
    """Say whether a map is to be made again."""
    return y.is_cuda and y.nbytes >= SMALLEST_BYTES and not torch.compiler.is_compiling()


class _View(NamedTuple):
    """What is kept of a view of a map."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
