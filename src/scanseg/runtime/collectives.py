"""Collective operations of distributed processes on tensors."""

import torch
import torch.distributed as dist

# Functions of torch.distributed.nn have the group of all processes as a default argument, bound at import.
# If the import happens while a group exists (torch.compile does that), the module keeps the group's threads alive
# until Python exits. A thread that releases a tensor then ends the process with SIGABRT.
# So the module is imported before the group exists.
import torch.distributed.nn
from torch import Tensor


class _Sum(torch.autograd.Function):
    """Sum over processes, with gradients.

    Every process computes the loss from the sum, so the backward pass sums gradients too.
    """

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_tensor(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes.

    Gradients flow to every process.

    Args:
        tensor: Any shape, equal on all processes.
    """
    return _Sum.apply(tensor)
