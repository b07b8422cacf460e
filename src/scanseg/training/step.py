"""A training step: network, optimizer, EMA weights and counters."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.batches import Batch
from scanseg.errors import UsageError
from scanseg.inference import CudaGraphNetwork
from scanseg.models import Checkpoint
from scanseg.networks import EncoderNetwork, place_network
from scanseg.ops import cores_for_compiling
from scanseg.runtime import GradientReduction, RunContext
from scanseg.specs import Plan, TrainingState
from scanseg.training.cuda_graph import GraphedGradients
from scanseg.training.ema import EMANetwork
from scanseg.training.kernel_compilation import compile_kernels
from scanseg.training.losses import segmentation_loss
from scanseg.training.optimizers import (
    build_optimizer,
    list_group_misfits,
    list_optimizer_misfits,
    restore_optimizer,
    set_learning_rate,
    store_optimizer,
)

_STREAM = 4
"""Number of the random stream that seeds the draws of the network itself (stochastic depth)."""


class TrainingStep:
    """A network in training, which takes one batch per step.

    A step depends only on the state and on the iteration number.

    Attributes:
        seconds: Training time so far, which the loop sets.
        compiling_seconds: Time until the kernels of all processes were compiled.
    """

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        *,
        autocast_dtype: torch.dtype | None,
        num_compiling_threads: int | None = None,
        context: RunContext,
    ) -> None:
        """Create the EMA weights at iteration 0.

        Args:
            plan: Loss, optimizer, seed and other settings.
            network: Network with initial weights. It is moved to the device.
            autocast_dtype: Type of matrix products and convolutions. `None`: float32.
            num_compiling_threads: Threads that compile GPU kernels before the first step. `None`: one per core that
                is available to this process. 0: each kernel is compiled at its first launch.
            context: Device, progress of compiling, and the distributed processes that share each batch.
        """
        self._context, self._device, self._distributed = context, context.torch_device, context.distributed
        self.network = network = place_network(network, self._device)
        # Kept, because walking over the modules takes a fraction of a millisecond.
        self._parameters = list(network.parameters())
        self.ema: EMANetwork | None = None
        if plan.training.ema_decay is not None:
            self.ema = EMANetwork(network, decay=plan.training.ema_decay)
        self.iterations_done = 0
        self.seconds = 0.0
        self.compiling_seconds = 0.0
        self._plan = plan
        self._autocast_dtype = autocast_dtype
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=autocast_dtype == torch.float16)
        self._graph: GraphedGradients | None = None
        self._reduction: GradientReduction | None = None
        self._graphed_logits: CudaGraphNetwork | None = None
        if num_compiling_threads is None:
            num_compiling_threads = cores_for_compiling(num_sharing=context.distributed.local_world_size)
        self._compiling_threads = num_compiling_threads if self._device.type == "cuda" else 0

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The optimizer.

        Building it imports PyTorch's compiler, so the kernels are requested before.
        """
        return build_optimizer(self.network, self._plan.training.optimizer)

    def prepare(self) -> None:
        """Build the optimizer now, which the first step does otherwise."""
        _ = self._optimizer

    @property
    def eval_network(self) -> nn.Module:
        """The network to validate and export, with EMA weights if planned."""
        return self.network if self.ema is None else self.ema.network

    @property
    def loss_scale(self) -> float | None:
        """Scale of the loss in float16. `None`: another type.

        Reading it waits for the device.
        """
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    def run(self, batch: Batch, *, lr: float, encoder_frozen: bool = False) -> Float[Tensor, ""]:
        """Train on one batch and return its loss.

        Args:
            batch: Training batch. Of several processes: the shard of this one.
            lr: Learning rate of the step.
            encoder_frozen: Do not change the network's encoder.

        Returns:
            The loss of the batch or shard, on the device. Reading it waits for the step.
        """
        training = self._plan.training
        if not self.network.training:
            self.network.train()
        parts = _split(batch, training.accumulation_steps)
        self._compile(parts[0])
        set_learning_rate(self._optimizer, lr)
        if self._reduction is None and self._distributed.world_size > 1 and len(parts) == 1:
            world_size = self._distributed.world_size
            self._reduction = GradientReduction(self._parameters, world_size=world_size)
        if self._graph is None and self._device.type == "cuda" and self._can_be_graph():
            shared = self._distributed.world_size > 1
            self._graph = GraphedGradients(self._backward, self.network, parts[0], communicates=shared)
        # Compiling and capturing draw numbers too, so the seed comes after them.
        seed = np.random.default_rng([training.seed, _STREAM, self.iterations_done, self._distributed.rank])
        torch.manual_seed(int(seed.integers(2**62)))
        loss = self._accumulated_gradients(parts)
        if self._reduction is None:
            self._distributed.average_gradients(self._parameters)
        with _without_gradients(self._encoder_parameters() if encoder_frozen else []):
            if training.gradient_clip is not None:
                self._scaler.unscale_(self._optimizer)
                nn.utils.clip_grad_norm_(self._parameters, training.gradient_clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self.iterations_done += 1
        if self.ema is not None:
            self.ema.follow(steps=self.iterations_done)
        return loss

    def _compile(self, batch: Batch) -> None:
        """Compile the GPU kernels of training and validation before the first step."""
        if not self._compiling_threads:
            return

        def passes() -> None:
            self._backward(batch)
            with torch.no_grad(), self._autocast():
                self._predict_logits(batch.images)

        began = time.monotonic()
        compile_kernels(
            passes,
            self.network,
            context=self._context,
            num_threads=self._compiling_threads,
        )
        self.network.train()
        self._compiling_threads = 0
        self._distributed.gather_numbers([0.0])  # the wait for other processes is no training time either
        self.compiling_seconds = time.monotonic() - began

    def _encoder_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the network's encoder.

        Raises:
            UsageError: The network has no separate encoder.
        """
        if not isinstance(self.network, EncoderNetwork):
            raise UsageError(
                f"training.frozen_encoder_epochs: {self._plan.network.kind} has no separate encoder. Set it to 0."
            )
        return list(self.network.encoder_parameters())

    def _can_be_graph(self) -> bool:
        """Whether a step can be captured as a CUDA graph.

        It cannot if its loss is summed over processes.
        """
        training, dataset = self._plan.training, self._plan.dataset
        summed = training.loss.dice_over_batch or training.loss.label_weights or dataset.ignore_label
        return training.cuda_graph and not (self._distributed.world_size > 1 and summed)

    def _accumulated_gradients(self, parts: Sequence[Batch]) -> Tensor:
        """Compute the mean gradients of all parts, and return their mean loss."""
        if len(parts) == 1:
            return self._gradients(parts[0])
        parameters = [parameter for parameter in self._parameters if parameter.requires_grad]
        losses, total = [], None
        for part in parts:
            losses.append(self._gradients(part))
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if total is None:
                total = [gradient.clone() for gradient in gradients]
            else:
                torch._foreach_add_(total, gradients)
        assert total is not None
        torch._foreach_div_(total, len(parts))
        torch._foreach_copy_(gradients, total)
        return torch.stack(losses).mean()

    def _gradients(self, batch: Batch) -> Tensor:
        """Compute the gradients of a batch and return its loss."""
        if self._graph is not None:
            return self._graph(batch)
        self._optimizer.zero_grad(set_to_none=True)
        return self._backward(batch)

    def _backward(self, batch: Batch) -> Tensor:
        """Run the forward and the backward pass, and return the loss.

        Gradients are averaged over all processes, if there is a reduction.
        """
        with self._autocast():
            outputs = as_sequence(self.network(batch.images))
        loss = segmentation_loss(
            outputs,
            batch.label_maps,
            spec=self._plan.training.loss,
            dataset=self._plan.dataset,
            total=self._distributed.sum,
        )
        with nullcontext() if self._reduction is None else self._reduction.during_backward():
            self._scaler.scale(loss).backward()
        return loss.detach()

    @torch.no_grad()
    def logits(self, batch: Batch) -> Float[Tensor, "batch output *axes"]:
        """Return the logits of the evaluation network at full resolution.

        The batch changes no weights.
        """
        if self._graphed_logits is None and self._device.type == "cuda" and self._plan.training.cuda_graph:
            shared = None if self._graph is None else self._graph.graph
            self._graphed_logits = CudaGraphNetwork(self._predict_logits, beside=shared)
        with self._autocast():
            return (self._graphed_logits or self._predict_logits)(batch.images).float()

    def _predict_logits(self, images: Tensor) -> Tensor:
        """Run the evaluation network and return its full-resolution output.

        Args:
            images: Images with axes (batch, channel, *axes).
        """
        return as_sequence(self.eval_network.eval()(images))[0]

    def checkpoint(self) -> Checkpoint:
        """Return the state for a checkpoint."""
        tensors, groups = store_optimizer(self._optimizer)
        scaler_state = self._scaler.state_dict()
        state = TrainingState(
            iterations_done=self.iterations_done,
            training_seconds=self.seconds,
            optimizer_groups=groups,
            num_optimizer_tensors=len(tensors),
            loss_scale=scaler_state.get("scale"),
            num_steps_at_loss_scale=scaler_state.get("_growth_tracker"),
        )
        ema = None if self.ema is None else self.ema.network.state_dict()
        return Checkpoint(state, network=self.network.state_dict(), optimizer=tensors, ema=ema)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint.

        Raises:
            InputError: The checkpoint does not fit the plan.
        """
        checkpoint.check_network(self.network.state_dict(), has_ema=self.ema is not None)
        state = checkpoint.state
        checkpoint.refuse(
            "optimizer",
            list_optimizer_misfits(self._optimizer, checkpoint.optimizer, number=state.num_optimizer_tensors),
        )
        checkpoint.refuse("state", list_group_misfits(self._optimizer, state.optimizer_groups))
        if self._scaler.is_enabled() and None in (state.loss_scale, state.num_steps_at_loss_scale):
            checkpoint.refuse(
                "state", ["loss_scale and num_steps_at_loss_scale: expected numbers for float16"]
            )
        self.network.load_state_dict(checkpoint.network)
        if self.ema is not None and checkpoint.ema is not None:
            self.ema.restore(checkpoint.ema)
        restore_optimizer(self._optimizer, checkpoint.optimizer, checkpoint.state.optimizer_groups)
        if self._scaler.is_enabled():
            restored = {
                "scale": checkpoint.state.loss_scale,
                "_growth_tracker": checkpoint.state.num_steps_at_loss_scale,
            }
            self._scaler.load_state_dict({**self._scaler.state_dict(), **restored})
        self.iterations_done = checkpoint.state.iterations_done
        self.seconds = checkpoint.state.training_seconds

    def _autocast(self) -> AbstractContextManager[object]:
        """Return the autocast context of the network."""
        if self._autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast_dtype)


@contextmanager
def _without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Hide gradients from the optimizer, so that it leaves the parameters unchanged.

    The gradients are restored afterwards, because a CUDA graph writes to the same memory at the next step.
    """
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    yield
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _split(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into parts of equal size."""
    pairs = zip(batch.images.chunk(count), batch.label_maps.chunk(count), strict=True)
    return [Batch(images, label_maps) for images, label_maps in pairs]


def as_sequence(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the outputs of a network as a sequence.

    Args:
        outputs: Tensor or tensors with axes (batch, output, *axes).
    """
    return (outputs,) if isinstance(outputs, Tensor) else outputs
