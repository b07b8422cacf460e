"""Checking a network against a record of the published implementation: outputs and gradients."""

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
"""Largest absolute difference of an output that is accepted."""
GRADIENT_BOUNDS: Mapping[torch.dtype, float] = MappingProxyType({torch.float64: 1e-6, torch.float32: 3e-2})
"""Largest relative L2 difference of all gradients together; leaky ReLU kinks amplify rounding."""
BIAS_BEFORE_NORM = re.compile(r".*\.conv[12](\.conv)?\.bias")
"""Official names of biases of convolutions that feed an instance norm: their true gradient is 0."""


@dataclass(frozen=True)
class VerificationResult:
    """How far a network is from a record.

    Attributes:
        network: Kind of the network.
        dtype: The type that it computed in.
        device: The device that it computed on.
        output_difference: Largest absolute difference of all outputs.
        output_bound: Bound of the former.
        gradient_difference: Relative L2 difference of all gradients, of parameters and input, as one vector.
        gradient_bound: Bound of the former.
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
        """Whether both differences are within their bounds."""
        return self.output_difference <= self.output_bound and self.gradient_difference <= self.gradient_bound


@dataclass(frozen=True)
class Record:
    """What a file holds that was recorded from a published implementation.

    Attributes:
        path: The file.
        config: Sizes of the network.
        tensors: `input`, `output.N`, `state.NAME`, `input_grad`, `grad.NAME`, `loss`.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def outputs(self) -> list[Tensor]:
        """The outputs, the highest resolution first."""
        count = sum(name.startswith("output.") for name in self.tensors)
        return [self.tensors[f"output.{index}"] for index in range(count)]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose name begins with a prefix and a dot, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def verify_record(
    path: Path, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> VerificationResult:
    """Rebuild a recorded network, load its official weights, and compare outputs and gradients.

    TF32 is off for the comparison.

    Args:
        path: The record, a safetensors file.
        dtype: float64 or float32.
        device: Where to compute.

    Raises:
        InputError: The file is no record, or the dtype has no bounds.
    """
    if dtype not in OUTPUT_BOUNDS:
        names = " or ".join(str(known).removeprefix("torch.") for known in OUTPUT_BOUNDS)
        raise InputError(f"{path}: there are no bounds for {dtype}. Verify in {names}.")
    record = read_record(Path(path))
    try:
        network = BUILDERS[record.config["network"]](record.config)
        load_official(network, record.under("state"), kind=record.config["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the config {dict(record.config)} lacks or garbles {error}.") from error
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
    """Read a record.

    Args:
        path: A safetensors file.

    Raises:
        InputError: The file cannot be read, is no safetensors file, or is no record of a known network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as a safetensors file ({error}). Give a record, whole."
        ) from error
    if "config" not in metadata:
        raise InputError(
            f"{path}: not a record: its metadata has no entry `config`. Give a file of `golden`."
        )
    try:
        config = json.loads(metadata["config"])
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a record: its `config` is not JSON ({error}).") from error
    if not isinstance(config, dict) or config.get("network") not in BUILDERS:
        raise InputError(
            f"{path}: not a record of a known network: its `config` is {config!r}. "
            f"Known are {', '.join(BUILDERS)}."
        )
    missing = [name for name in ("input", "output.0", "input_grad") if name not in tensors]
    if missing:
        raise InputError(f"{path}: not a record: it lacks {', '.join(missing)}. Give a record, whole.")
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
"""From the config of a record to the network, by kind."""


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
        raise InputError(f"{record.path}: the outputs have shapes {shapes}, the record {wanted}.")
    differences = [
        (output.detach().double().cpu() - recorded.double()).abs().max().item()
        for output, recorded in zip(outputs, record.outputs, strict=True)
    ]
    # max() would drop a NaN.
    return float(torch.tensor(differences, dtype=torch.float64).max())


def _gradient_difference(gradients: Mapping[str, Tensor], record: Record) -> float:
    recorded = {
        name: tensor for name, tensor in record.under("grad").items() if not BIAS_BEFORE_NORM.fullmatch(name)
    }
    wanted = official_to_ours(recorded, kind=record.config["network"]) | {
        "input": record.tensors["input_grad"]
    }
    missing = sorted(wanted.keys() - gradients.keys())
    if missing:
        raise InputError(f"{record.path}: the network has no gradient of {', '.join(missing)}.")
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
