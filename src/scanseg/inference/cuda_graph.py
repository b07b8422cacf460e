"""Passes of a network as CUDA graphs.

For small batches, launching the hundreds of kernels of a pass takes longer than running them. All windows have the same
shape, so a pass is captured once and replayed for the other windows.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops import compile_ahead, cores_for_compiling
from scanseg.runtime import GraphedCall, report_direct_passes

DIRECT_PASSES = 3
"""Passes of a shape that run directly before the capture.

Libraries choose their kernels in these passes, and images of few windows need no graph.
"""
MAX_SHAPES = 2
"""Maximum number of shapes with a graph: a full batch of windows, and the last, smaller batch.

Each graph holds the memory of a pass.
"""

Windows = Float[Tensor, "batch channel *patch"]
Logits = Float[Tensor, "batch output *patch"]


class CudaGraphNetwork:
    """Network whose passes are replayed as CUDA graphs.

    The first three calls of a shape run directly, and later calls replay a graph. Before the first call of a shape, a
    pass without computation requests all kernels, which are then compiled in parallel. Results equal those of direct
    calls.

    If a pass cannot be captured (memory ran out, or the network reads a value back to the host), the reason is logged
    once as a warning, and all passes run directly.
    """

    def __init__(
        self, network: Callable[[Windows], Logits], *, beside: torch.cuda.CUDAGraph | None = None
    ) -> None:
        """Wrap a network.

        Args:
            network: Network in evaluation mode on a GPU with CUDA. Its parameters may change in place, but must stay at
                the same address.
            beside: A captured graph whose memory may be shared. It must never be replayed at the same time.
        """
        self._network = network
        self._beside = beside
        self._counts: dict[torch.Size, int] = {}
        self._graphs: dict[torch.Size, GraphedCall[Logits]] = {}
        self._refused = False

    @torch.inference_mode()
    def __call__(self, windows: Windows) -> Logits:
        """Return the logits of a batch of windows."""
        if windows.is_cuda and windows.shape not in self._counts:
            with compile_ahead(cores_for_compiling()):
                self._network(windows)
        graph = self._graphs.get(windows.shape) or self._capture(windows)
        return self._network(windows) if graph is None else graph(windows).clone()

    def _capture(self, windows: Windows) -> GraphedCall[Logits] | None:
        """Return a new graph, or `None` if this pass runs directly."""
        count = self._counts.get(windows.shape, 0)
        self._counts[windows.shape] = count + 1
        if self._refused or count < DIRECT_PASSES or len(self._graphs) == MAX_SHAPES:
            return None
        try:
            graph = GraphedCall(self._network, (windows,), beside=self._beside, other_threads="left alone")
        except RuntimeError as error:
            self._refused = True
            self._graphs.clear()
            report_direct_passes(error)
            return None
        self._graphs[windows.shape] = graph
        return graph
