"""Compare networks with records of the published implementations."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.networks.msvm_unet import MSVMUNet
from scanseg.networks.placement import place_network
from scanseg.networks.published.weight_maps import load_official, official_to_ours
from scanseg.networks.xlstm_unet import XLSTMUNet

OUTPUT_BOUNDS: Mapping[torch.dtype, float] = MappingProxyType({torch.float64: 1e-8, torch.float32: 1e-3})
"""Largest accepted absolute difference of an output, by type."""
GRADIENT_BOUNDS: Mapping[torch.dtype, float] = MappingProxyType({torch.float64: 1e-6, torch.float32: 3e-2})
"""Largest accepted relative L2 difference of all gradients together, by type.

The kinks of leaky ReLU amplify rounding.
"""
BIAS_BEFORE_NORM = re.compile(r".*\.conv[12](\.conv)?\.bias")
"""Official names of biases of convolutions before an instance norm. Their exact gradient is 0."""


@dataclass(frozen=True)
class VerificationResult:
    """Differences between a network and a record.

    Attributes:
        network: Kind of the network.
        dtype: Type of the computation.
        device: Device of the computation.
        output_difference: Largest absolute difference of all outputs.
        output_bound: Bound of `output_difference`.
        gradient_difference: Relative L2 difference of all gradients, of parameters and input, as one vector.
        gradient_bound: Bound of `gradient_difference`.
        num_parameters: Parameters of the network.
    """

    network: str
    dtype: torch.dtype
    device: str
    output_difference: float
    output_bound: float
    gradient_difference: float
    gradient_bound: float
    num_parameters: int

    @property
    def passed(self) -> bool:
        """True if both differences are within their bounds."""
        return self.output_difference <= self.output_bound and self.gradient_difference <= self.gradient_bound


@dataclass(frozen=True)
class Record:
    """Inputs, weights, outputs and gradients of a published implementation.

    Attributes:
        path: File of the record.
        config: Sizes of the network.
        tensors: `input`, `output.N`, `state.NAME`, `input_grad`, `grad.NAME`, `loss`.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def outputs(self) -> list[Tensor]:
        """Recorded outputs, the highest resolution first."""
        count = sum(name.startswith("output.") for name in self.tensors)
        return [self.tensors[f"output.{index}"] for index in range(count)]

    def with_prefix(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with a prefix and a dot.

        Args:
            prefix: First part of the names. The result's names lack it.
        """
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def verify_record(
    path: Path, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> VerificationResult:
    """Compare outputs and gradients of a network with a record.

    The network is built from the record, with the official weights. TF32 is off during the comparison.

    Args:
        path: The record, a safetensors file.
        dtype: Type of the computation: float64 or float32.
        device: Device of the computation.

    Raises:
        InputError: The file is not a record, or the type has no bounds.

    Example:
        >>> from pathlib import Path
        >>> from scanseg.networks import verify_record
        >>> result = verify_record(Path("xlstm_unet_enc_2d.safetensors"))  # doctest: +SKIP
        >>> result.passed  # doctest: +SKIP
        True
    """
    if dtype not in OUTPUT_BOUNDS:
        names = " or ".join(str(known).removeprefix("torch.") for known in OUTPUT_BOUNDS)
        raise InputError(f"{path}: expected the type {names}, got {dtype}, which has no bounds.")
    record = read_record(Path(path))
    try:
        network = BUILDERS[record.config["network"]](record.config)
        load_official(network, record.with_prefix("state"), kind=record.config["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: invalid or missing entry {error} in config {dict(record.config)}."
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    network = place_network(network.eval().to(dtype), torch.device(device))
    with _without_tf32():
        outputs, gradients = _run(network, record, dtype=dtype, device=device)
    return VerificationResult(
        network=record.config["network"],
        dtype=dtype,
        device=str(device),
        output_difference=_output_difference(outputs, record),
        output_bound=OUTPUT_BOUNDS[dtype],
        gradient_difference=_gradient_difference(gradients, record),
        gradient_bound=GRADIENT_BOUNDS[dtype],
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def read_record(path: Path) -> Record:
    """Read a record of a published implementation.

    Args:
        path: A safetensors file.

    Raises:
        InputError: The file cannot be read, is not a safetensors file, or is not a record of a known network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as a safetensors file ({error}). Give a complete record."
        ) from error
    if "config" not in metadata:
        raise InputError(f"{path}: not a record: no entry `config` in its metadata. Give a file of `golden`.")
    try:
        config = json.loads(metadata["config"])
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a record: its `config` is not JSON ({error}).") from error
    if not isinstance(config, dict) or config.get("network") not in BUILDERS:
        raise InputError(
            f"{path}: not a record of a known network: expected one of {', '.join(BUILDERS)}, got the `config` "
            f"{config!r}."
        )
    missing = [name for name in ("input", "output.0", "input_grad") if name not in tensors]
    if missing:
        raise InputError(
            f"{path}: not a record: missing tensors {', '.join(missing)}. Give a complete record."
        )
    return Record(path=path, config=config, tensors=tensors)


def _build_msvm_unet(config: Mapping[str, Any]) -> nn.Module:
    dims = tuple(config["embed"] * 2**stage for stage in range(len(config["depths"])))
    return MSVMUNet(config["in"], config["classes"], dims=dims, depths=config["depths"])


def _build_xlstm_unet(config: Mapping[str, Any]) -> nn.Module:
    return XLSTMUNet(
        config["in"],
        config["classes"],
        patch_size=config["patch"],
        strides=config["strides"],
        features=config["features"],
        kernel_sizes=config["kernels"],
        variant=config["variant"],
    )


BUILDERS = MappingProxyType({"msvm-unet": _build_msvm_unet, "xlstm-unet": _build_xlstm_unet})
"""Functions that build a network from the config of a record, by kind."""


def _run(
    network: nn.Module, record: Record, *, dtype: torch.dtype, device: str | torch.device
) -> tuple[list[Tensor], dict[str, Tensor]]:
    image = record.tensors["input"].to(device=device, dtype=dtype).requires_grad_()
    result = network(image, every_stage=True) if len(record.outputs) > 1 else network(image)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    torch.stack([_loss(output) for output in outputs]).sum().backward()
    gradients = {
        name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    assert image.grad is not None
    return outputs, gradients | {"input": image.grad}


def _loss(output: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
    return (output.reshape(-1) * weights).mean()


def _output_difference(outputs: list[Tensor], record: Record) -> float:
    shapes = [tuple(output.shape) for output in outputs]
    wanted = [tuple(output.shape) for output in record.outputs]
    if shapes != wanted:
        raise InputError(f"{record.path}: expected outputs of shapes {wanted}, got {shapes}.")
    differences = [
        (output.detach().double().cpu() - recorded.double()).abs().max().item()
        for output, recorded in zip(outputs, record.outputs, strict=True)
    ]
    # Python's max() would drop a NaN.
    return float(torch.tensor(differences, dtype=torch.float64).max())


def _gradient_difference(gradients: Mapping[str, Tensor], record: Record) -> float:
    recorded = {
        name: tensor
        for name, tensor in record.with_prefix("grad").items()
        if not BIAS_BEFORE_NORM.fullmatch(name)
    }
    wanted = official_to_ours(recorded, kind=record.config["network"]) | {
        "input": record.tensors["input_grad"]
    }
    missing = sorted(wanted.keys() - gradients.keys())
    if missing:
        raise InputError(f"{record.path}: missing gradients of {', '.join(missing)} in the network.")
    found = torch.cat([gradients[name].double().cpu().reshape(-1) for name in wanted])
    reference = torch.cat([tensor.double().reshape(-1) for tensor in wanted.values()])
    return ((found - reference).norm() / reference.norm()).item()


@contextmanager
def _without_tf32() -> Iterator[None]:
    precision, cudnn_tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn_tf32
