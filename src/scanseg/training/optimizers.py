"""Optimizers, built from the plan and stored without pickles."""

import json
from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from scanseg.networks import split_weight_decay
from scanseg.specs import AdamWSpec, SGDSpec


def build_optimizer(network: nn.Module, spec: SGDSpec | AdamWSpec) -> torch.optim.Optimizer:
    """Build the optimizer of a network's parameters; on a GPU its steps are fused."""
    fused = next(network.parameters()).is_cuda
    if isinstance(spec, SGDSpec):
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.momentum > 0,
            weight_decay=spec.weight_decay,
            fused=fused,
        )
        if spec.momentum > 0:
            _begin_momentum(optimizer)
        return optimizer
    decayed, undecayed = split_weight_decay(network)
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": undecayed, "weight_decay": spec.weight_decay if spec.decay_all else 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def _begin_momentum(optimizer: torch.optim.SGD) -> None:
    """Set the running sums of gradients to 0, from which PyTorch's first step gives the gradients themselves.

    PyTorch allocates them at the first step and leaves the filling to the kernel of fused steps, which does nothing
    where a gradient is not finite: after a first step that was skipped in float16 they would hold what lay in memory.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def store_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], tuple[dict[str, JsonValue], ...]]:
    """Take an optimizer's state apart.

    Returns:
        Its tensors by `PARAMETER.NAME`, and the settings of its parameter groups.
    """
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value
        for number, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return tensors, tuple(json.loads(json.dumps(group)) for group in state["param_groups"])


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: tuple[dict[str, JsonValue], ...],
) -> None:
    """Put together what `store_optimizer` took apart; whether steps are fused depends on the device that goes on."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    here = [{"fused": group["fused"]} for group in optimizer.param_groups]
    settings = [{**group, **ours} for group, ours in zip(groups, here, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": settings})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # Fused steps want the memory format of the parameter; files know one format only.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
