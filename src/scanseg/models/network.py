"""Networks of plans, and their weights."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.models.tensors import join_misfits, list_misfits
from scanseg.networks import build_network, without_values
from scanseg.specs import Plan


def check_network(plan: Plan) -> None:
    """Check that the network of a plan can be built.

    It is built on the meta device, which takes no memory for weights.

    Raises:
        InputError: A setting of the network or the patch size is invalid.
    """
    with without_values():
        network_of(plan)


def count_parameters(plan: Plan) -> int:
    """Return the number of parameters of a plan's network.

    Args:
        plan: The plan.
    """
    with without_values():
        return sum(parameter.numel() for parameter in network_of(plan).parameters())


def load_weights(
    network: nn.Module, weights: Mapping[str, Tensor], *, source: Path, name: str = "network of the plan"
) -> None:
    """Load weights into a network.

    Args:
        network: The network.
        weights: Its state dict.
        source: File of the weights, for messages.
        name: Name of the network, for messages.

    Raises:
        InputError: Names, shapes or kinds of numbers differ. The message lists the differences, at most the first
            twenty.
    """
    faults = list_misfits(network.state_dict(), weights)
    if faults:
        raise InputError(f"{source}: the weights do not fit the {name}: {join_misfits(faults)}")
    network.load_state_dict(weights)


def network_of(plan: Plan) -> nn.Module:
    """Build the network of a plan on torch's default device."""
    return build_network(
        plan.network,
        in_channels=plan.num_inputs,
        num_classes=plan.dataset.num_outputs,
        patch_size=plan.sampling.patch_size,
    )
