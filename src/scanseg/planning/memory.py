"""Predicted GPU memory of a training step.

A step holds weights and optimizer state, the feature maps that the backward pass needs and does not recompute, the
outputs with the intermediate values of the loss, and the workspace of convolutions. The values of feature maps are
counted: the outputs of all layers for one patch, in a pass without computation. The bytes per value are constants of a
network and a precision. They are fitted to peaks measured on an H200 by `benchmarks/memory_prediction.py`. The states
that newer kernels keep for backward are counted by their shape.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scanseg.layers import SMALLEST_BYTES, SS2D, BasicBlockD, BasicResBlock, MLSTMCell
from scanseg.networks import build_network
from scanseg.ops import mlstm_state_bytes, scan_state_bytes
from scanseg.specs import Plan

Width = Literal[16, 32]
"""Bits of products. bfloat16 and float16 need the same memory."""

WEIGHT_BYTES: dict[Width, int] = {32: 4, 16: 6}
"""Bytes per weight: float32, and a copy in 16 bits if products are 16 bits wide."""
OPTIMIZER_BYTES = {"sgd": 4, "adamw": 8}
"""Bytes of optimizer state per weight.

Gradients are allocated while feature maps are freed, so the peak contains none.
"""
OUTPUT_BYTES = 4.0
"""Bytes per output value of every stage with a loss: logits and their gradients at the peak."""
WORKSPACE_BYTES: dict[Width, float] = {16: 0.0, 32: 1.47e9}
"""Further bytes of every network, probably the workspace of cuDNN's TF32 kernels."""
MAP_BYTES: dict[str, dict[Width, float]] = {
    "xlstm-unet": {16: 3.7, 32: 6.8},
    "msvm-unet": {16: 4.8, 32: 8.35},
    "plain-unet": {16: 5.25, 32: 9.5},
    "residual-unet": {16: 3.4, 32: 6.0},
}
"""Bytes per output value of a layer, by the kind of the network."""
OTHER_MAP_BYTES: dict[Width, float] = {16: 4.3, 32: 7.7}
"""Bytes per output value of networks without a measurement: the mean of the measured networks."""
MEASURED_SEGMENT = 32
"""Tokens per state of the four-direction scan in the measured kernels. `MAP_BYTES` contains these states."""


@dataclass(frozen=True)
class Counts:
    """Numbers of values that a network computes for one patch."""

    parameters: int
    """Number of weights."""
    map_values: int
    """Output values of all layers."""
    output_values: int
    """Output values of the network, including deep supervision."""
    spared_values: tuple[int, ...] = ()
    """Values of each feature map that the backward pass recomputes if it is large."""
    scans: tuple[tuple[int, int, int, int], ...] = ()
    """Channels, rows, columns and states of a channel of each four-direction scan."""
    cells: tuple[tuple[int, int, int], ...] = ()
    """Heads, tokens and features of a head of each mLSTM."""


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training step, without training cases on the device."""

    weights_bytes: float
    """Bytes of weights and optimizer state."""
    maps_bytes: float
    """Bytes of feature maps, including recomputed ones."""
    outputs_bytes: float
    """Bytes of outputs and intermediate values of the loss."""
    spared_bytes: float = 0.0
    """Bytes of recomputed feature maps, which are not kept."""
    workspace_bytes: float = 0.0
    """Bytes of workspace."""
    states_bytes: float = 0.0
    """Bytes of the states of scans and mLSTM that the measured kernels did not keep."""

    @property
    def total_bytes(self) -> float:
        """Peak memory in bytes."""
        maps_bytes = self.maps_bytes - self.spared_bytes
        others_bytes = self.outputs_bytes + self.states_bytes + self.workspace_bytes
        return self.weights_bytes + maps_bytes + others_bytes


def step_memory(plan: Plan, *, width: Width | None = None, counts: Counts | None = None) -> StepMemory:
    """Predict the peak memory of a training step, without a CUDA graph.

    Args:
        plan: Plan of the training.
        width: Bits of products. `None`: those of the plan's precision on a GPU with bfloat16 units.
        counts: Result of `count_values` for the plan. `None`: it is computed.
    """
    counts, training = counts or count_values(plan), plan.training
    if width is None:
        width = 32 if training.precision == "float32" else 16
    batch = math.ceil(plan.sampling.batch_size / training.accumulation_steps)
    held = WEIGHT_BYTES[width] + OPTIMIZER_BYTES[training.optimizer.kind]
    held += 4 * (training.ema_decay is not None) + 4 * (training.accumulation_steps > 1)
    map_bytes = MAP_BYTES.get(plan.network.kind, OTHER_MAP_BYTES)[width]
    spared = [batch * values * width // 8 for values in counts.spared_values]
    # The kernels that keep states take bfloat16 alone.
    keeps_states = width == 16 and training.precision != "float16"
    return StepMemory(
        weights_bytes=float(held * counts.parameters),
        maps_bytes=map_bytes * batch * counts.map_values,
        outputs_bytes=OUTPUT_BYTES * batch * counts.output_values,
        spared_bytes=float(sum(num_bytes for num_bytes in spared if num_bytes >= SMALLEST_BYTES)),
        workspace_bytes=WORKSPACE_BYTES[width],
        states_bytes=float(_states_bytes(counts, batch)) if keeps_states else 0.0,
    )


def _states_bytes(counts: Counts, batch: int) -> int:
    """Count the bytes of states that the measured kernels did not keep.

    The batch is in bfloat16.
    """
    total = sum(mlstm_state_bytes(batch, *cell) for cell in counts.cells)
    for dim, height, width, state in counts.scans:
        measured = 4 * batch * 4 * -(-height * width // MEASURED_SEGMENT) * state * dim
        total += scan_state_bytes((batch, dim, height, width), state=state) - measured
    return total


def count_values(plan: Plan) -> Counts:
    """Count the values that a plan's network computes for one patch.

    This takes seconds, and host memory for the weights.

    Args:
        plan: Plan of the network.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            plan.network,
            in_channels=plan.num_inputs,
            num_classes=plan.dataset.num_outputs,
            patch_size=plan.sampling.patch_size,
        ).train()
    values, spared = 0, list[int]()
    scans, cells = list[tuple[int, int, int, int]](), list[tuple[int, int, int]]()
    blocks = (block for block in network.modules() if isinstance(block, BasicResBlock | BasicBlockD))
    recomputed = {block.recomputed_norm for block in blocks}

    def add(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal values
        num_values = sum(tensor.numel() for tensor in _tensors(output))
        values += num_values
        if module in recomputed:
            spared.append(num_values // 2)

    def add_sequence(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(module, SS2D):
            _, dim, height, width = inputs[0].shape
            scans.append((dim, height, width, module.state_size))
        elif isinstance(module, MLSTMCell):
            _, token, inner = inputs[0].shape
            cells.append((module.num_heads, token, inner // module.num_heads))

    with ExitStack() as hooks, torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        for module in network.modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_hook(add).remove)
            elif isinstance(module, SS2D | MLSTMCell):
                hooks.callback(module.register_forward_hook(add_sequence).remove)
        # Two patches, since batch norm needs more than one value per channel.
        outputs = network(torch.empty(2, plan.num_inputs, *plan.sampling.patch_size))
        num_outputs = sum(tensor.numel() for tensor in _tensors(outputs))
    return Counts(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        map_values=values // 2,
        output_values=num_outputs // 2,
        spared_values=tuple(spared),
        scans=tuple(scans),
        cells=tuple(cells),
    )


def _tensors(output: object) -> Sequence[Tensor]:
    """Return the tensors of a layer's output."""
    if isinstance(output, Tensor):
        return [output]
    return [part for part in output if isinstance(part, Tensor)] if isinstance(output, tuple | list) else []
