"""Buffers of a network, such as running statistics, during runs that must not change them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Restore the buffers of a network after the block.

    Args:
        network: The network.
    """
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
