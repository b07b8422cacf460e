"""Build optimizers from the plan, and store them without pickle."""

import json
from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from scanseg.networks import split_weight_decay
from scanseg.specs import AdamWSpec, SGDSpec


def build_optimizer(network: nn.Module, spec: SGDSpec | AdamWSpec) -> torch.optim.Optimizer:
    """Build the optimizer of a network.

    On a GPU its steps are fused.
    """
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
    """Set the momentum buffers to 0.

    The first step then gives the same buffers as PyTorch's own start. PyTorch allocates them at the first step and
    lets the kernel of the fused step fill them. That kernel does nothing if a gradient is not finite, so a skipped
    first step in float16 would leave uninitialized memory in them.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def store_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], tuple[dict[str, JsonValue], ...]]:
    """Return the state of an optimizer as tensors and settings.

    Returns:
        The tensors by `PARAMETER.NAME`, and the settings of the parameter groups.
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
    """Restore the state from `store_optimizer`.

    Args:
        optimizer: The optimizer. Its steps stay fused, or not, whatever the stored setting.
        tensors: Stored tensors by `PARAMETER.NAME`.
        groups: Stored settings of the parameter groups.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    current = [{"fused": group["fused"]} for group in optimizer.param_groups]
    settings = [{**group, **kept} for group, kept in zip(groups, current, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": settings})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # Fused steps need the memory format of the parameter, and files have only one format.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
