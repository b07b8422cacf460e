"""Buffers of a network during runs that must not change them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Restore the buffers of a network after the block.

    Args:
        network: The network.

    Example:
        >>> import torch
        >>> from scanseg.networks import buffers_kept
        >>> norm = torch.nn.BatchNorm2d(1)
        >>> with buffers_kept(norm):
        ...     _ = norm(torch.ones(2, 1, 3, 3))
        >>> norm.num_batches_tracked
        tensor(0)
    """
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
