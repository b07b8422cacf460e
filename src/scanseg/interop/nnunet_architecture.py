"""Networks of nnU-Net's plans as documents of ours, and back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from scanseg.interop.nnunet_documents import Architecture
from scanseg.interop.nnunet_networks import CLASS_NAME, read_network
from scanseg.specs import NetworkSpec, PlainUNetSpec, ResidualUNetSpec, describe_faults

UNetSpec = PlainUNetSpec | ResidualUNetSpec

_CLASSES = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""Known network classes, and their argument with the layers of each encoder stage."""
_MODULE = "dynamic_network_architectures.architectures.unet"
_STAGES = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")
_EPS = 1e-5
_SLOPE = 0.01


def network_of_architecture(
    architecture: Architecture, *, num_axes: int, faults: list[str], notes: list[str]
) -> NetworkSpec | None:
    """Return the network of nnU-Net's plans.

    Args:
        architecture: Class and arguments of the network.
        num_axes: Number of axes of the patch.
        faults: Reasons against the import are added here.
        notes: Notes about the import are added here.

    Returns:
        The network, or `None` if it cannot be imported.
    """
    name = architecture.network_class_name.rpartition(".")[2]
    if architecture.network_class_name == CLASS_NAME:
        return _own_network(architecture, faults)
    if name not in _CLASSES:
        faults.append(
            f"network {architecture.network_class_name}: expected {' or '.join(_CLASSES)}, which scanseg has"
        )
        return None
    arguments = architecture.arch_kwargs
    found = list(_list_faults(name, arguments, num_axes=num_axes))
    faults += found
    if found:
        return None
    if arguments.get("dropout_op") is not None:
        notes.append("the network's dropout has no effect on predictions. Fine-tuning trains without it")
    try:
        return _build_spec(name, arguments, num_axes=num_axes)
    except ValidationError as error:
        faults.append(f"network: {describe_faults(error, content={})}")
    except (TypeError, ValueError) as error:
        faults.append(f"network: expected numbers for each stage ({error})")
    return None


def _own_network(architecture: Architecture, faults: list[str]) -> NetworkSpec | None:
    """Return a network of ours that nnU-Net has trained."""
    content = architecture.arch_kwargs.get("network")
    try:
        return read_network(content if isinstance(content, dict) else {})
    except ValidationError as error:
        faults.append(f"network: {describe_faults(error, content=content)}")
        return None


def architecture_of_network(spec: UNetSpec) -> dict[str, Any]:
    """Return a network as in nnU-Net's plans.

    Args:
        spec: The network.
    """
    is_plain = isinstance(spec, PlainUNetSpec)
    name = "PlainConvUNet" if is_plain else "ResidualEncoderUNet"
    layers = spec.num_convs_encoder if isinstance(spec, PlainUNetSpec) else spec.num_blocks_encoder
    arguments = {
        "n_stages": len(spec.features),
        "features_per_stage": list(spec.features),
        "conv_op": f"torch.nn.modules.conv.Conv{spec.num_axes}d",
        "kernel_sizes": [list(kernel) for kernel in spec.kernel_sizes],
        "strides": [list(stride) for stride in spec.strides],
        _CLASSES[name]: list(layers),
        "n_conv_per_stage_decoder": list(spec.num_convs_decoder),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{spec.num_axes}d",
        "norm_op_kwargs": {"eps": _EPS, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": f"{_MODULE}.{name}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _list_faults(name: str, arguments: Mapping[str, Any], *, num_axes: int) -> Iterator[str]:
    """Yield arguments that our networks do not have."""
    layers = _CLASSES[name]
    for key in (*_STAGES, layers):
        if key not in arguments:
            yield f"network {name}: {key} is missing"
    expected: dict[str, tuple[Any, ...]] = {
        "conv_op": (f"Conv{num_axes}d",),
        "norm_op": (f"InstanceNorm{num_axes}d",),
        "nonlin": ("LeakyReLU",),
    }
    for key, names in expected.items():
        value = str(arguments.get(key)).rpartition(".")[2]
        if value not in names:
            yield f"network {name}: {key}: expected {names[0]}, got {arguments.get(key)}"
    norm = arguments.get("norm_op_kwargs") or {}
    if not norm.get("affine") or norm.get("eps", _EPS) != _EPS or norm.get("track_running_stats"):
        yield f"network {name}: norm_op_kwargs: expected eps {_EPS} and affine, got {norm}"
    slope = (arguments.get("nonlin_kwargs") or {}).get("negative_slope", _SLOPE)
    if slope != _SLOPE:
        yield f"network {name}: nonlin_kwargs: expected negative_slope {_SLOPE}, got {slope}"
    yield from _list_option_faults(name, arguments, known={*_STAGES, layers, *expected})


def _list_option_faults(name: str, arguments: Mapping[str, Any], *, known: set[str]) -> Iterator[str]:
    """Yield options with values that our networks do not have."""
    features = arguments.get("features_per_stage")
    first = features[0] if isinstance(features, list) and features else features
    allowed: dict[str, tuple[Any, ...]] = {
        "nonlin_first": (False,),
        "block": (None, "dynamic_network_architectures.building_blocks.residual.BasicBlockD"),
        "bottleneck_channels": (None,),
        "stem_channels": (None, first),
    }
    free = {
        "conv_bias",
        "norm_op_kwargs",
        "nonlin_kwargs",
        "dropout_op",
        "dropout_op_kwargs",
        "deep_supervision",
    }
    for key, value in arguments.items():
        if key in allowed and value not in allowed[key]:
            yield f"network {name}: {key}: expected {allowed[key][-1]}, got {value}"
        elif key not in {*allowed, *free, *known}:
            yield f"network {name}: the option {key} is unknown"


def _build_spec(name: str, arguments: Mapping[str, Any], *, num_axes: int) -> UNetSpec:
    num_stages = int(arguments["n_stages"])
    stages = {
        "features": _per_stage(arguments["features_per_stage"], num_stages),
        "kernel_sizes": _per_axis(arguments["kernel_sizes"], num_stages, num_axes),
        "strides": _per_axis(arguments["strides"], num_stages, num_axes),
        "num_convs_decoder": _per_stage(arguments["n_conv_per_stage_decoder"], num_stages - 1),
    }
    layers = _per_stage(arguments[_CLASSES[name]], num_stages)
    if name == "PlainConvUNet":
        return PlainUNetSpec.model_validate(stages | {"num_convs_encoder": layers})
    return ResidualUNetSpec.model_validate(stages | {"num_blocks_encoder": layers})


def _per_stage(value: int | Sequence[int], count: int) -> list[int]:
    """Return one number per stage."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"expected {count} numbers, got {values}")
    return values


def _per_axis(value: Any, count: int, num_axes: int) -> list[list[int]]:
    """Return one number per stage and axis."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"expected sizes of {count} stages, got {values}")
    return [[each] * num_axes if isinstance(each, int) else list(each) for each in values]
