"""Compile the kernels of a step in threads, before the first step."""

from collections.abc import Callable

import torch
from torch import nn

from scanseg.networks import buffers_kept
from scanseg.ops import compile_ahead
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext


def compile_kernels(
    run: Callable[[], object], network: nn.Module, *, num_threads: int, context: RunContext
) -> None:
    """Run a network so that its kernels are requested, and compile them.

    The results of this run are meaningless and dropped: the network's buffers are restored, it has no gradients, and
    the memory is freed. Random generators advance by the draws of the run.

    Args:
        run: Function that runs every pass of the network whose kernels are needed, without the optimizer.
        network: The network.
        num_threads: Number of compiling threads.
        context: GPU of the network, and progress.
    """

    def report(done: int, total: int) -> None:
        context.progress(ProgressUpdate("compiling kernels", done, total))

    with compile_ahead(num_threads, backward_on=context.torch_device, progress=report), buffers_kept(network):
        run()
        network.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
