"""A network's passes as CUDA graphs: hundreds of kernels launched at once.

At small batches a pass of these networks launches kernels more slowly than the GPU runs them. Windows all have one
shape, so that a pass is captured once and replayed for the others.
"""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops import compile_ahead, cores_for_compiling
from scanseg.runtime import capture

_LOGGER = logging.getLogger(__name__)

DIRECT_PASSES = 3
"""Passes of a shape that run directly: libraries choose their kernels in them, and few windows need no graph."""
MAX_SHAPES = 2
"""Shapes of which graphs are held, since each holds the memory of a pass: a whole batch of windows, and the rest."""

Windows = Float[Tensor, "batch channel *patch"]
Logits = Float[Tensor, "batch output *patch"]


class CudaGraphNetwork:
    """Calls a network; from the fourth call of a shape on, replays its CUDA graph.

    Before the first call of a shape a pass without numbers asks for all kernels, which are compiled at the same time.
    The numbers are those of a direct call. Where a pass cannot be captured (the memory does not suffice, or the network
    reads a value back to the host) the reason is logged once, as a warning, and every pass runs directly.
    """

    def __init__(
        self, network: Callable[[Windows], Logits], *, beside: torch.cuda.CUDAGraph | None = None
    ) -> None:
        """Take a network into use.

        Args:
            network: In evaluation, on a GPU with CUDA. The values of its parameters may change, but not where they lie.
            beside: A captured graph whose memory may be used, since it is never replayed at the same time.
        """
        self._network = network
        self._beside = beside
        self._counts: dict[torch.Size, int] = {}
        self._graphs: dict[torch.Size, _Graph] = {}
        self._refused = False

    @property
    def num_graphs(self) -> int:
        """Number of shapes whose passes are replayed."""
        return len(self._graphs)

    @torch.inference_mode()
    def __call__(self, windows: Windows) -> Logits:
        """Return the logits of a batch of windows."""
        if windows.is_cuda and windows.shape not in self._counts:
            with compile_ahead(cores_for_compiling()):
                self._network(windows)
        graph = self._graphs.get(windows.shape) or self._capture(windows)
        return self._network(windows) if graph is None else graph.replay(windows)

    def _capture(self, windows: Windows) -> "_Graph | None":
        """Return a new graph, or None where this pass is to run directly."""
        count = self._counts.get(windows.shape, 0)
        self._counts[windows.shape] = count + 1
        if self._refused or count < DIRECT_PASSES or len(self._graphs) == MAX_SHAPES:
            return None
        try:
            graph = _Graph(self._network, windows, self._beside)
        except RuntimeError as error:
            self._refused = True
            self._graphs.clear()
            reason = str(error).strip().partition("\n")[0]
            _LOGGER.warning("passes of the network run directly, not as a CUDA graph: %s", reason)
            return None
        self._graphs[windows.shape] = graph
        return graph


class _Graph:
    """One captured pass, with the memory in which its input and its logits lie."""

    def __init__(
        self, network: Callable[[Windows], Logits], windows: Windows, beside: torch.cuda.CUDAGraph | None
    ) -> None:
        self._input = windows.clone()
        self._graph = torch.cuda.CUDAGraph()
        dtype = torch.get_autocast_dtype("cuda")
        # Weights that autocast has cast outside of the graph would be freed before it is replayed.
        with (
            torch.autocast(
                "cuda", dtype=dtype, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False
            ),
            torch.cuda.device(windows.device),
            capture(self._graph, beside=beside, other_threads="left alone"),
        ):
            self._logits = network(self._input)

    def replay(self, windows: Windows) -> Logits:
        """Return the logits of windows of the captured shape; no later replay changes them."""
        self._input.copy_(windows)
        self._graph.replay()
        return self._logits.clone()
