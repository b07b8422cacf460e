"""Build optimizers from the plan, and store them without pickle."""

import json
from collections.abc import Mapping, Sequence

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from scanseg.messages import shortened
from scanseg.models import list_misfits
from scanseg.networks import split_weight_decay
from scanseg.specs import AdamWSpec, SGDSpec

_STATE: dict[type[torch.optim.Optimizer], tuple[tuple[str, ...], tuple[str, ...]]] = {
    torch.optim.SGD: (("momentum_buffer",), ()),
    torch.optim.AdamW: (("exp_avg", "exp_avg_sq"), ("step",)),
}
"""Names of the state of a parameter: tensors of its shape, and numbers."""
_STEP_COUNT = torch.zeros(())


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


def list_optimizer_misfits(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], *, number: int | None
) -> list[str]:
    """Return the faults of stored tensors of an optimizer.

    Args:
        optimizer: The optimizer.
        tensors: Stored tensors by `PARAMETER.NAME`.
        number: Stored number of tensors. `None`: unknown.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    like_parameter, names = _STATE[type(optimizer)]
    if isinstance(optimizer, torch.optim.SGD) and not optimizer.param_groups[0]["momentum"]:
        like_parameter = names = ()
    expected: dict[str, Tensor] = {}
    for index, parameter in enumerate(parameters):
        of_parameter = {
            f"{index}.{name}": parameter if name in like_parameter else _STEP_COUNT
            for name in (*like_parameter, *names)
        }
        # Parameters that have had no gradient yet have no state.
        if isinstance(optimizer, torch.optim.SGD) or any(key in tensors for key in of_parameter):
            expected |= of_parameter
    faults = list_misfits(expected, tensors, same_dtype=True)
    if number is not None and number != len(tensors):
        faults.append(f"expected {number} tensors, got {len(tensors)}")
    return faults


def list_group_misfits(
    optimizer: torch.optim.Optimizer, groups: Sequence[Mapping[str, JsonValue]]
) -> list[str]:
    """Return the faults of stored settings of parameter groups.

    Args:
        optimizer: The optimizer.
        groups: Stored settings of the parameter groups.
    """
    current = optimizer.state_dict()["param_groups"]
    if len(groups) != len(current):
        return [f"optimizer_groups: expected {len(current)} groups, got {len(groups)}"]
    faults = []
    for number, (group, stored) in enumerate(zip(current, groups, strict=True)):
        for name, value in group.items():
            where = f"optimizer_groups.{number}.{name}"
            if name not in stored:
                if isinstance(value, bool) or value is None:  # a setting of another version of PyTorch
                    continue
                faults.append(f"{where} is missing")
            elif name == "params" and stored[name] != value:
                faults.append(
                    f"{where}: expected {shortened(str(value))}, got {shortened(str(stored[name]))}"
                )
            elif not _is_alike(stored[name], value):
                faults.append(f"{where}: expected a value like {value}, got {shortened(str(stored[name]))}")
    return faults


def _is_alike(stored: JsonValue, value: object) -> bool:
    """Return whether a stored setting has the type of a setting."""
    if isinstance(value, list | tuple):
        return (
            isinstance(stored, list)
            and len(stored) == len(value)
            and all(_is_alike(a, b) for a, b in zip(stored, value, strict=True))
        )
    if isinstance(value, bool) or value is None:
        return stored is None or isinstance(stored, bool)
    return isinstance(stored, int | float) and not isinstance(stored, bool) and stored >= 0


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
