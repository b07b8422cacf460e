"""The kernels of a step are compiled before the first one, in threads: a new machine has none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scanseg.ops import compile_ahead
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext


def compile_kernels(
    run: Callable[[], object], network: nn.Module, *, num_threads: int, context: RunContext
) -> None:
    """Let passes of a network ask for their kernels and wait until these are compiled.

    The passes' numbers are worthless. Nothing of them stays: the network's buffers are what they were, it has no
    gradients, and the memory is given back. What the passes draw from random generators is drawn.

    Args:
        run: Takes the network through every pass whose kernels are wanted, without the optimizer.
        network: The network.
        num_threads: Threads that compile.
        context: The GPU of the network, and progress.
    """

    def tell(done: int, total: int) -> None:
        context.progress(ProgressUpdate("compiling kernels", done, total))

    with compile_ahead(num_threads, backward_on=context.torch_device, progress=tell), buffers_kept(network):
        run()
        network.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Let a network's buffers, such as running statistics, be afterwards what they were."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    yield
    for buffer, before in buffers:
        buffer.copy_(before)
