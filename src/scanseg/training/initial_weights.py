"""Weights of another training to begin with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.models import ModelFolder, read_tensors
from scanseg.networks import build_network
from scanseg.specs import Plan

_SHOWN = 6


@dataclass(frozen=True)
class InitialWeights:
    """What was taken from another model."""

    source: str
    """The model folder."""
    renewed: tuple[str, ...]
    """Parameters that were left as they were initialised, since the labels differ."""


def load_initial_weights(network: nn.Module, plan: Plan, source: Path) -> InitialWeights:
    """Put the weights of a trained model into a network, without its head where the labels are others.

    The head is every parameter whose shape depends on the number of outputs.

    Args:
        network: The network, freshly initialised.
        plan: Its plan.
        source: Folder of the model to take the weights from.

    Raises:
        InputError: There is no such model, or its network is another one.
    """
    model = ModelFolder.open(source)
    weights = read_tensors(model.weights_path())
    theirs, ours = model.plan.dataset, plan.dataset
    same_labels = theirs.labels == ours.labels and [*theirs.foreground] == [*ours.foreground]
    head = frozenset[str]() if same_labels else _head(plan)
    there = network.state_dict()
    faults = [f"{name} is not there" for name in there if name not in weights and name not in head]
    faults += [f"{name} is not in this network" for name in weights if name not in there]
    faults += [
        f"{name} has shape {tuple(weights[name].shape)}, here {tuple(tensor.shape)}"
        for name, tensor in there.items()
        if name in weights and name not in head and weights[name].shape != tensor.shape
    ]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"{source} holds weights of another network than that of the plan: {'; '.join(faults[:_SHOWN])}{more}. "
            f"Train with its network: scanseg plan DATASET --like {source} -o plan.json"
        )
    taken = {name: value for name, value in weights.items() if name not in head}
    network.load_state_dict({**there, **taken})
    return InitialWeights(str(source), tuple(sorted(head)))


def _head(plan: Plan) -> frozenset[str]:
    """Return the names of the parameters whose shape depends on the number of outputs."""
    outputs = plan.dataset.num_outputs
    few, more = _shapes(plan, outputs), _shapes(plan, outputs + 1)
    return frozenset(name for name, tensor in few.items() if more[name].shape != tensor.shape)


def _shapes(plan: Plan, num_classes: int) -> dict[str, Tensor]:
    """Return the state dict of the plan's network for a number of outputs, without memory for it."""
    with torch.device("meta"):
        network = build_network(
            plan.network,
            in_channels=plan.num_inputs,
            num_classes=num_classes,
            patch_size=plan.sampling.patch_size,
        )
    return network.state_dict()
