"""Memory that a training step will take on a GPU.

A step holds the weights and what the optimizer keeps of them, the maps that backward needs and does not make again, the
outputs with what the loss makes of them, and what convolutions take to work in. Maps are counted: the values that come
out of all layers for one patch, by a run in which no number is computed. Bytes for each value are constants of a
network and a precision, fitted to peaks measured on an H200 by `benchmarks/memory_prediction.py`.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scanseg.layers import SMALLEST_BYTES, BasicBlockD, BasicResBlock
from scanseg.networks import build_network
from scanseg.specs import Plan

Width = Literal[16, 32]
"""Bits in which products are computed: bfloat16 and float16 take the same memory."""

WEIGHT_BYTES: dict[Width, int] = {32: 4, 16: 6}
"""A weight in float32, and its copy in 16 bits."""
OPTIMIZER_BYTES = {"sgd": 4, "adamw": 8}
"""What the optimizer keeps of each weight; gradients come while maps go, so that the peak holds none of them."""
OUTPUT_BYTES = 4.0
"""Of each output of the network, on every stage with a loss: what is left of logits and their gradients at the peak."""
WORKSPACE_BYTES: dict[Width, float] = {16: 0.0, 32: 1.47e9}
"""What every network takes besides, at any size; probably what cuDNN's kernels for TF32 work in."""
MAP_BYTES: dict[str, dict[Width, float]] = {
    "xlstm-unet": {16: 3.7, 32: 6.8},
    "msvm-unet": {16: 4.8, 32: 8.35},
    "plain-unet": {16: 5.25, 32: 9.5},
    "residual-unet": {16: 3.4, 32: 6.0},
}
"""Of each value that comes out of a layer, by the kind of the network."""
OTHER_MAP_BYTES: dict[Width, float] = {16: 4.3, 32: 7.7}
"""For networks that were not measured: the mean of those that were."""


@dataclass(frozen=True)
class Counts:
    """What a network computes of one patch."""

    parameters: int
    """Its weights."""
    map_values: int
    """Values that come out of its layers."""
    output_values: int
    """Values that it returns, those of the stages with deep supervision among them."""
    spared_values: tuple[int, ...] = ()
    """Values of each map that backward makes again where it is large."""


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training step, without the cases that may be held on the device."""

    weights_bytes: float
    maps_bytes: float
    outputs_bytes: float
    spared_bytes: float = 0.0
    """Of the maps, what is not kept since it is made again."""
    workspace_bytes: float = 0.0

    @property
    def total_bytes(self) -> float:
        """The peak."""
        maps_bytes = self.maps_bytes - self.spared_bytes
        return self.weights_bytes + maps_bytes + self.outputs_bytes + self.workspace_bytes


def step_memory(plan: Plan, *, width: Width | None = None, counts: Counts | None = None) -> StepMemory:
    """Predict the peak of a training step of a plan, launched kernel by kernel.

    Args:
        plan: The plan.
        width: Bits of the products; None: those of the plan's precision, on a GPU that has bfloat16.
        counts: What `count_values` says of the plan, if it is known.
    """
    counts, training = counts or count_values(plan), plan.training
    if width is None:
        width = 32 if training.precision == "float32" else 16
    batch = math.ceil(plan.sampling.batch_size / training.accumulation_steps)
    held = WEIGHT_BYTES[width] + OPTIMIZER_BYTES[training.optimizer.kind]
    held += 4 * (training.ema_decay is not None) + 4 * (training.accumulation_steps > 1)
    map_bytes = MAP_BYTES.get(plan.network.kind, OTHER_MAP_BYTES)[width]
    spared = [batch * values * width // 8 for values in counts.spared_values]
    return StepMemory(
        weights_bytes=float(held * counts.parameters),
        maps_bytes=map_bytes * batch * counts.map_values,
        outputs_bytes=OUTPUT_BYTES * batch * counts.output_values,
        spared_bytes=float(sum(num_bytes for num_bytes in spared if num_bytes >= SMALLEST_BYTES)),
        workspace_bytes=WORKSPACE_BYTES[width],
    )


def count_values(plan: Plan) -> Counts:
    """Count the values that a plan's network computes of one patch; takes seconds, and the memory of its weights."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            plan.network,
            in_channels=plan.num_inputs,
            num_classes=plan.dataset.num_outputs,
            patch_size=plan.sampling.patch_size,
        ).train()
    values, spared = 0, list[int]()
    blocks = (block for block in network.modules() if isinstance(block, BasicResBlock | BasicBlockD))
    recomputed = {block.recomputed_norm for block in blocks}

    def add(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal values
        here = sum(tensor.numel() for tensor in _tensors(output))
        values += here
        if module in recomputed:
            spared.append(here // 2)

    with ExitStack() as hooks, torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        for module in network.modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_hook(add).remove)
        # Two, since a batch norm refuses a single voxel.
        outputs = network(torch.empty(2, plan.num_inputs, *plan.sampling.patch_size))
        num_outputs = sum(tensor.numel() for tensor in _tensors(outputs))
    return Counts(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        map_values=values // 2,
        output_values=num_outputs // 2,
        spared_values=tuple(spared),
    )


def _tensors(output: object) -> Sequence[Tensor]:
    """Return the tensors of a layer's output."""
    if isinstance(output, Tensor):
        return [output]
    return [part for part in output if isinstance(part, Tensor)] if isinstance(output, tuple | list) else []
