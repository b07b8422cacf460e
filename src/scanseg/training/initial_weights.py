"""Load initial weights from another model."""

from pathlib import Path

from torch import Tensor, nn

from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder, load_encoder, read_tensors
from scanseg.networks import MSVMUNet, build_network, without_values
from scanseg.specs import Plan

_SHOWN = 6


def load_initial_weights(network: nn.Module, plan: Plan, source: Path) -> tuple[str, ...]:
    """Load the weights of a model or an encoder into a network.

    If the labels differ, the head keeps its random weights. The head is every parameter whose shape depends on the
    number of outputs.

    Args:
        network: The network with random weights.
        plan: Its plan.
        source: Model folder of the initial weights, or a file with the weights of the encoder.

    Returns:
        Names of the parameters that keep random weights, because the labels differ.

    Raises:
        InputError: The model is missing, or its network is a different one.
    """
    if source.is_file():
        check_encoder_weights(plan, source)
        assert isinstance(network, MSVMUNet)
        load_encoder(network, source)
        return ()
    model = ModelFolder.open(source)
    weights = read_tensors(model.weights_path())
    theirs, ours = model.plan.dataset, plan.dataset
    same_labels = theirs.labels == ours.labels and [*theirs.foreground] == [*ours.foreground]
    head = frozenset[str]() if same_labels else _head(plan)
    own = network.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights and name not in head]
    faults += [f"{name} is not in this network" for name in weights if name not in own]
    faults += [
        f"{name}: expected shape {tuple(tensor.shape)}, got {tuple(weights[name].shape)}"
        for name, tensor in own.items()
        if name in weights and name not in head and weights[name].shape != tensor.shape
    ]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"{source}: the weights do not fit the network of the plan: {'; '.join(faults[:_SHOWN])}{more}. Train with "
            f"the network of that model: scanseg plan DATASET --like {source} -o plan.json"
        )
    taken = {name: value for name, value in weights.items() if name not in head}
    network.load_state_dict({**own, **taken})
    return tuple(sorted(head))


def check_encoder_weights(plan: Plan, path: Path) -> None:
    """Check that a training can start from the weights of an encoder.

    Args:
        plan: Plan of the training.
        path: VMamba's checkpoint, or the file from `scanseg weights import --network vmamba`.

    Raises:
        InputError: The file is missing.
        UsageError: The network of the plan is no MSVM-UNet.
    """
    if plan.network.kind != "msvm-unet":
        raise UsageError(
            f"encoder weights: expected the network msvm-unet, got {plan.network.kind}. Choose --recipe msvm-unet, or "
            "leave the encoder weights out."
        )
    if not path.is_file():
        raise InputError(
            f"{path}: no such file. Give VMamba's checkpoint, or the file from scanseg weights import."
        )


def _head(plan: Plan) -> frozenset[str]:
    """Return parameter names with shapes that depend on the outputs."""
    outputs = plan.dataset.num_outputs
    few, more = _shapes(plan, outputs), _shapes(plan, outputs + 1)
    return frozenset(name for name, tensor in few.items() if more[name].shape != tensor.shape)


def _shapes(plan: Plan, num_classes: int) -> dict[str, Tensor]:
    """Return the state dict of the plan's network on the meta device.

    Args:
        plan: The plan.
        num_classes: Number of outputs.
    """
    with without_values():
        network = build_network(
            plan.network,
            in_channels=plan.num_inputs,
            num_classes=num_classes,
            patch_size=plan.sampling.patch_size,
        )
    return network.state_dict()
