"""Forward and backward pass as one CUDA graph.

A step of these networks has about a thousand short kernels. Launching them one by one from Python takes longer than
running them. A graph is captured once per batch shape and replayed with new content, with one launch.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.batches import Batch
from scanseg.errors import ScansegError
from scanseg.networks import buffers_kept
from scanseg.runtime import CaptureMemoryError, capture, is_memory_error

_WARM_UPS = 3
"""Runs before the capture, in which libraries choose kernels and allocate workspaces."""


class GraphedGradients:
    """CUDA graph for the loss and the gradients of a batch.

    After a call the gradients are in the parameters' `grad`. It must stay there and not be set to `None`.
    """

    def __init__(
        self,
        compute: Callable[[Batch], Tensor],
        network: nn.Module,
        batch: Batch,
        *,
        communicates: bool = False,
    ) -> None:
        """Capture the computation. The network's buffers are unchanged afterwards.

        Args:
            compute: Function that computes the loss and the gradients of a batch (calls `backward`), without reading
                a value back to the host.
            network: The network.
            batch: A batch on the GPU, with the shape of all others.
            communicates: The function sends messages to other processes.

        Raises:
            CaptureMemoryError: The memory is enough for the computation, but not for its graph.
            ScansegError: The computation cannot be captured, for example because it reads values back to the host.
        """
        self._batch = Batch(batch.images.clone(), batch.label_maps.clone())
        with buffers_kept(network):
            self._warm_up(compute, network)
            self.graph = torch.cuda.CUDAGraph()
            try:
                with capture(self.graph, communicates=communicates):
                    self._loss = compute(self._batch)
            except RuntimeError as error:
                if is_memory_error(error):
                    raise CaptureMemoryError from error
                reason = str(error).strip().partition("\n")[0]
                raise ScansegError(
                    f"the steps of this network cannot be captured as a CUDA graph ({reason}). Train again in another "
                    f"model folder with --set training.cuda_graph=false"
                ) from error

    def _warm_up(self, compute: Callable[[Batch], Tensor], network: nn.Module) -> None:
        """Run the computation on another stream, and drop the gradients."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                network.zero_grad(set_to_none=True)
                compute(self._batch)
        torch.cuda.current_stream().wait_stream(side)
        network.zero_grad(set_to_none=True)

    def __call__(self, batch: Batch) -> Float[Tensor, ""]:
        """Compute the gradients of a batch and return its loss."""
        self._batch.images.copy_(batch.images)
        self._batch.label_maps.copy_(batch.label_maps)
        self.graph.replay()
        return self._loss.clone()
