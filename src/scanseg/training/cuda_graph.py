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
from scanseg.runtime import CaptureMemoryError, GraphedCall, is_memory_error, run_before_capture


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

        def run() -> None:
            network.zero_grad(set_to_none=True)
            compute(batch)

        with buffers_kept(network):
            run_before_capture(run)
            network.zero_grad(set_to_none=True)
            try:
                self._call = GraphedCall(
                    lambda images, label_maps: compute(Batch(images, label_maps)),
                    (batch.images, batch.label_maps),
                    communicates=communicates,
                )
            except RuntimeError as error:
                if is_memory_error(error):
                    raise CaptureMemoryError from error
                reason = str(error).strip().partition("\n")[0]
                raise ScansegError(
                    f"the steps of this network cannot be captured as a CUDA graph ({reason}). Train again in another "
                    f"model folder with --set training.cuda_graph=false"
                ) from error

    @property
    def graph(self) -> torch.cuda.CUDAGraph:
        """The graph."""
        return self._call.graph

    def __call__(self, batch: Batch) -> Float[Tensor, ""]:
        """Compute the gradients of a batch and return its loss."""
        return self._call(batch.images, batch.label_maps).clone()
