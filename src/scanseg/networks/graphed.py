"""Networks with passes that replay as CUDA graphs, in any loop."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scanseg.networks.buffers import buffers_kept
from scanseg.ops import compile_ahead, cores_for_compiling
from scanseg.runtime import capture

_LOGGER = logging.getLogger(__name__)

MAX_GRAPHS = 4
"""Maximum number of passes with a graph. Each holds the memory of its pass."""

_WARM_UPS = 3
"""Runs before a capture, in which libraries choose kernels and allocate workspaces."""

Outputs = Tensor | tuple[Tensor, ...]
_Key = tuple[Any, ...]


def graphed(network: nn.Module) -> "GraphedNetwork":
    """Wrap a network so that its passes replay as CUDA graphs.

    A pass of a network launches hundreds of kernels. For small maps that takes longer than running them. A graph
    launches all of them at once. Autocast, gradient scaling and clipping, accumulation and any optimizer work as usual.

    Args:
        network: A network of this package on a GPU with CUDA.

    Returns:
        A module with the same results, parameters and modes.

    Example:
        >>> import torch
        >>> from scanseg.networks import PlainUNet, graphed
        >>> network = graphed(PlainUNet(1, 2, strides=((1, 1), (2, 2)), features=(4, 8), deep_supervision=False))
        >>> network(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 8, 8])
    """
    return GraphedNetwork(network)


class GraphedNetwork(nn.Module):
    """A network with one CUDA graph for each kind of pass.

    The kind of a pass is the shape and dtype of the images, the mode of the network, the autocast setting, whether
    gradients are needed, and the addresses of the parameters. The first pass of a kind captures it, and later ones
    replay it. The first four kinds have a graph. Passes of other kinds run directly, as on the CPU, and passes with
    images that need a gradient.

    If a pass cannot be captured (memory ran out, or the network reads a value back to the host), the reason is logged
    once as a warning, and all passes run directly.

    Args:
        network: The network. Its weights may change in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._graphs: dict[_Key, _Pass] = {}
        self._refused = False

    @property
    def num_graphs(self) -> int:
        """Number of passes with a graph."""
        return len(self._graphs)

    def forward(self, images: Float[Tensor, "batch channel *space"]) -> Outputs:
        """Return the logits.

        Args:
            images: The images, as for the network.

        Raises:
            RuntimeError: In the backward pass, if another pass with this graph has replaced the maps that it needs.
        """
        if (
            not images.is_cuda
            or images.requires_grad
            or self._refused
            or torch.cuda.is_current_stream_capturing()
        ):
            return self._direct(images)
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        key = self._key(images, parameters)
        graph = self._graphs.get(key)
        if graph is None:
            if len(self._graphs) == MAX_GRAPHS:
                return self._direct(images)
            graph = self._capture(images, parameters)
            if graph is None:
                return self._direct(images)
            self._graphs[key] = graph
        return graph(images)

    def _direct(self, images: Tensor) -> Outputs:
        outputs: Outputs = self.network(images)
        return outputs

    def _key(self, images: Tensor, parameters: Sequence[nn.Parameter]) -> _Key:
        autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        addresses = tuple(parameter.data_ptr() for parameter in parameters)
        modes = (self.network.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast)
        return (images.shape, images.dtype, images.device, *modes, addresses)

    def _capture(self, images: Tensor, parameters: Sequence[nn.Parameter]) -> "_Pass | None":
        needed = parameters if torch.is_grad_enabled() else []
        try:
            return _Pass(self.network, images, needed)
        except RuntimeError as error:
            self._refused = True
            self._graphs.clear()
            reason = str(error).strip().partition("\n")[0]
            _LOGGER.warning("passes of the network run directly, not as a CUDA graph: %s", reason)
            return None


class _Pass:
    """The graphs of a forward pass and of its backward pass."""

    def __init__(self, network: nn.Module, images: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        self._network = network
        self._parameters = tuple(parameters)
        self._images = images.detach().clone()
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self._generation = 0
        with torch.cuda.device(images.device), _autocast_without_cache(), buffers_kept(network):
            self._warm_up()
            with capture(self._forward, other_threads="left alone"):
                outputs = network(self._images)
            self._is_single = isinstance(outputs, Tensor)
            self._outputs: tuple[Tensor, ...] = (outputs,) if self._is_single else tuple(outputs)
            self._grads_of_outputs = [torch.empty_like(output) for output in self._outputs]
            self._gradients: list[Tensor | None] = []
            if self._parameters:
                with capture(self._backward, beside=self._forward, other_threads="left alone"):
                    self._gradients = self._differentiate(self._outputs)
        # The pass is not differentiated again. Its maps stay in the memory of the graphs.
        self._outputs = tuple(output.detach() for output in self._outputs)

    def _differentiate(self, outputs: tuple[Tensor, ...]) -> list[Tensor | None]:
        return list(torch.autograd.grad(outputs, self._parameters, self._grads_of_outputs, allow_unused=True))

    def _warm_up(self) -> None:
        """Compile the kernels in threads, then run the pass on another stream."""
        device = self._images.device
        with torch.random.fork_rng(devices=[device]):
            with compile_ahead(cores_for_compiling(), backward_on=device if self._parameters else None):
                self._run()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    self._run()
            torch.cuda.current_stream().wait_stream(side)

    def _run(self) -> None:
        outputs = self._network(self._images)
        outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if self._parameters:
            self._grads_of_outputs = [torch.zeros_like(output) for output in outputs]
            self._differentiate(outputs)

    def __call__(self, images: Tensor) -> Outputs:
        """Replay the forward pass for new images."""
        outputs = _Replay.apply(self, images, *self._parameters) if self._parameters else self.replay(images)
        return outputs[0] if self._is_single else tuple(outputs)

    def replay(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the outputs for new images."""
        self._images.copy_(images)
        self._forward.replay()
        self._generation += 1
        return tuple(output.clone() for output in self._outputs)

    @property
    def generation(self) -> int:
        """Number of replays."""
        return self._generation

    def gradients(self, generation: int, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return copies of the gradients of the parameters.

        Args:
            generation: Number of replays at the forward pass.
            grads: Gradients of its outputs.

        Raises:
            RuntimeError: Another forward pass came between.
        """
        if generation != self._generation:
            raise RuntimeError(
                "graphed network: expected the backward pass before the next forward pass of this kind, got it after. "
                "Call backward() after each forward pass, or use the network itself for several passes at a time."
            )
        for buffer, grad in zip(self._grads_of_outputs, grads, strict=True):
            if grad is None:
                buffer.zero_()
            else:
                buffer.copy_(grad)
        self._backward.replay()
        # Autograd may keep what it gets as `grad`, and the next replay writes into the captured tensors.
        copies = iter(torch._foreach_mul([grad for grad in self._gradients if grad is not None], 1.0))
        return [None if grad is None else next(copies) for grad in self._gradients]


class _Replay(torch.autograd.Function):
    """The replayed pass with its gradients."""

    @staticmethod
    def forward(ctx: Any, graph: _Pass, images: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        outputs = graph.replay(images)
        ctx.graph, ctx.generation = graph, graph.generation
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.graph.gradients(ctx.generation, grads)


def _autocast_without_cache() -> AbstractContextManager[object]:
    """Return the current autocast without its cache.

    Weights that autocast has converted outside of a graph would be freed before the replay.
    """
    dtype = torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
