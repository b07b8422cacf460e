"""Networks with passes that replay as CUDA graphs, in any loop."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from scanseg.networks.buffers import buffers_kept
from scanseg.ops import compile_ahead, cores_for_compiling
from scanseg.runtime import GraphedCall, autocast_without_cache, report_direct_passes, run_before_capture

MAX_GRAPHS = 4
"""Maximum number of passes with a graph. Each holds the memory of its pass."""

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
        if self._refused or not _can_replay(images):
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
            report_direct_passes(error)
            return None


def _can_replay(images: Tensor) -> bool:
    """Return whether a pass of these images may be captured and replayed."""
    return images.is_cuda and not images.requires_grad and not torch.cuda.is_current_stream_capturing()


class _Pass:
    """The graphs of a forward pass and of its backward pass."""

    def __init__(self, network: nn.Module, images: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        self._network = network
        self._parameters = tuple(parameters)
        # Nodes of autograd for the parameters themselves may be alive in the caller's graph, for example in that of the
        # last loss. They belong to the caller's stream, which a capture must not wait for. So the capture has leaves
        # of its own, with the same memory.
        self._leaves: dict[str, Tensor] = {
            name: nn.Parameter(parameter.detach())
            for name, parameter in network.named_parameters()
            if self._parameters and parameter.requires_grad
        }
        self._generation = 0
        with buffers_kept(network):
            self._warm_up(images)
            self._forward = GraphedCall(self._compute, (images,), other_threads="left alone")
            outputs = self._forward.result
            self._backward: GraphedCall[list[Tensor | None]] | None = None
            if self._parameters:
                self._backward = GraphedCall(
                    lambda *grads: self._differentiate(outputs, grads),
                    [torch.empty_like(output) for output in outputs],
                    beside=self._forward.graph,
                    other_threads="left alone",
                )
        # The pass is not differentiated again. Its maps stay in the memory of the graphs.
        self._forward.result = tuple(output.detach() for output in outputs)

    def _compute(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = functional_call(self._network, self._leaves, (images,))
        self._is_single = isinstance(outputs, Tensor)
        return (outputs,) if self._is_single else tuple(outputs)

    def _differentiate(self, outputs: tuple[Tensor, ...], grads: Sequence[Tensor]) -> list[Tensor | None]:
        leaves = list(self._leaves.values())
        return list(torch.autograd.grad(outputs, leaves, grads, allow_unused=True))

    def _warm_up(self, images: Tensor) -> None:
        """Compile the kernels in threads, then run the pass on another stream."""

        def run() -> None:
            outputs = self._compute(images)
            if self._parameters:
                self._differentiate(outputs, [torch.zeros_like(output) for output in outputs])

        device = images.device
        with (
            torch.cuda.device(device),
            autocast_without_cache(),
            torch.random.fork_rng(devices=[device]),
        ):
            with compile_ahead(cores_for_compiling(), backward_on=device if self._parameters else None):
                run()
            run_before_capture(run)

    def __call__(self, images: Tensor) -> Outputs:
        """Replay the forward pass for new images."""
        outputs = _Replay.apply(self, images, *self._parameters) if self._parameters else self.replay(images)
        return outputs[0] if self._is_single else tuple(outputs)

    def replay(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the outputs for new images."""
        outputs = self._forward(images)
        self._generation += 1
        return tuple(output.clone() for output in outputs)

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
        assert self._backward is not None
        gradients = self._backward(*grads)
        # Autograd may keep what it gets as `grad`, and the next replay writes into the captured tensors.
        copies = iter(torch._foreach_mul([grad for grad in gradients if grad is not None], 1.0))
        return [None if grad is None else next(copies) for grad in gradients]


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
