"""Collective operations of distributed processes on tensors."""

import torch
import torch.distributed as dist

# Functions of torch.distributed.nn take the group of all processes as a default argument when the module is loaded.
# Loaded while there is a group, as torch.compile does, the module keeps the group's threads alive until Python ends,
# and a thread that then releases a tensor ends the process with SIGABRT. So the module is loaded before the group.
import torch.distributed.nn
from torch import Tensor


class _Sum(torch.autograd.Function):
    """Sum over processes; each of them computes the loss from it, so that gradients are summed too."""

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
    """Sum a tensor over all processes; gradients flow to each of them."""
    return _Sum.apply(tensor)
