"""Read checkpoints of the published codes, and write them as models.

Supported are Lightning's `.ckpt` (MSVM-UNet), nnU-Net's `checkpoint_final.pth` (xLSTM-UNet), VMamba's ImageNet `.pth`,
and plain state dicts. Reading runs no code of a checkpoint.
"""

import argparse
import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from scanseg.errors import InputError, UsageError
from scanseg.files import write_text, written_whole
from scanseg.models.folder import ModelFolder
from scanseg.models.network import load_weights
from scanseg.models.tensors import read_tensors, write_tensors
from scanseg.networks import WEIGHT_MAPS, MSVMUNet, load_official
from scanseg.specs import ImportRecord, Plan

Form = Literal["lightning", "nnunet", "vmamba", "state-dict"]

_RECORD_FILE = "import.json"
ENCODER_KIND = "vmamba"
"""Kind of weights for the encoder of an MSVM-UNet only."""
_LIGHTNING_PREFIX = "_model."
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes from DistributedDataParallel and torch.compile."""
_FORMS: tuple[tuple[str, Form], ...] = (
    ("network_weights", "nnunet"),
    ("state_dict", "lightning"),
    ("model", "vmamba"),
)
"""Key of the weights in the checkpoint, and the form of the checkpoint."""


@dataclass(frozen=True, eq=False)
class OfficialCheckpoint:
    """Weights of a published code with their official names."""

    form: Form
    weights: dict[str, Tensor]
    left_out: tuple[str, ...]
    """Names of tensors outside the network, such as buffers of a loss."""
    sha256: str
    """Checksum of the file."""


def read_official(path: Path) -> OfficialCheckpoint:
    """Read the weights of a checkpoint without running its code.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing or damaged. Or it holds types other than tensors, numbers and containers, or no
            weights in a supported form.
    """
    content = load_checkpoint(path)
    form, state = _find_weights(path, content)
    weights = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if not weights:
        raise InputError(f"{path}: holds no tensors as weights.")
    left_out: tuple[str, ...] = ()
    for prefix in _WRAPPER_PREFIXES:
        weights = _without_prefix(weights, prefix)
    if any(name.startswith(_LIGHTNING_PREFIX) for name in weights):
        left_out = tuple(sorted(name for name in weights if not name.startswith(_LIGHTNING_PREFIX)))
        weights = _without_prefix({n: t for n, t in weights.items() if n not in left_out}, _LIGHTNING_PREFIX)
    for prefix in _WRAPPER_PREFIXES:
        weights = _without_prefix(weights, prefix)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OfficialCheckpoint(form, weights, left_out, digest)


def import_weights(path: Path, output: Path, *, kind: str, plan: Path | None = None) -> ImportRecord:
    """Import a checkpoint of a published code without running its code.

    Args:
        path: Lightning's `.ckpt`, nnU-Net's `checkpoint_final.pth`, VMamba's `.pth`, or a plain state dict.
        output: New model folder to write. For `vmamba` a file ending in `.safetensors`.
        kind: `msvm-unet`, `xlstm-unet`, `plain-unet`, `residual-unet`, or `vmamba` (ImageNet weights for the encoder
            of an MSVM-UNet).
        plan: File of the plan for prediction, with labels, preprocessing and network. Not used for `vmamba`.

    Raises:
        InputError: The checkpoint cannot be read, or its names and shapes do not fit. The message lists all of them.
        UsageError: The network is unknown, or the plan is missing or of another network.
    """
    if kind not in WEIGHT_MAPS:
        raise UsageError(f"network: expected one of {', '.join(WEIGHT_MAPS)}, got {kind!r}")
    if kind == ENCODER_KIND:
        if plan is not None:
            raise UsageError("vmamba is an encoder and has no plan. Leave --plan out")
        return import_encoder(path, output)
    if plan is None:
        raise UsageError(
            f"a model of {kind} needs a plan, because a checkpoint holds no labels, preprocessing and sizes. Make one "
            "by scanseg plan DATASET --recipe RECIPE -o plan.json, and give it by --plan plan.json"
        )
    return import_model(path, output, plan=Plan.read(plan), kind=kind)


def import_model(path: Path, output: Path, *, plan: Plan, kind: str) -> ImportRecord:
    """Write the weights of a published network as a model folder.

    Args:
        path: The checkpoint.
        output: New model folder to write.
        plan: Plan for prediction. Its network must be the one of the checkpoint.
        kind: `msvm-unet`, `xlstm-unet`, `plain-unet` or `residual-unet`.

    Returns:
        The import record, which is also written to the model folder.

    Raises:
        InputError: The checkpoint cannot be read, or does not fit the plan's network. The message lists all names, and
            nothing is written.
        UsageError: The plan is for another network, or the output exists already.
    """
    if plan.network.kind != kind:
        raise UsageError(f"the plan is for {plan.network.kind}, not {kind}. Make it with a recipe of {kind}")
    ModelFolder.require_new(output)
    checkpoint = read_official(path)
    network = ModelFolder(output, plan).build_network()
    _load_into(network, checkpoint.weights, kind=kind, path=path)
    folder = ModelFolder.create(output, plan)
    folder.write_weights(network.state_dict())
    record = _record(path, checkpoint, kind=kind, num_tensors=len(network.state_dict()))
    write_text(output / _RECORD_FILE, record.to_json())
    return record


def import_encoder(path: Path, output: Path) -> ImportRecord:
    """Write VMamba's ImageNet weights for the encoder of an MSVM-UNet.

    Args:
        path: The checkpoint, of VMamba-T (V2).
        output: The file to write, ending in `.safetensors`.

    Raises:
        InputError: The checkpoint cannot be read, or belongs to another network. The message lists all names.
        UsageError: The output exists already, or has another ending.
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: encoder weights are one file. Choose a name ending in .safetensors")
    if output.exists():
        raise UsageError(f"{output} already exists. Remove it, or choose another file")
    checkpoint = read_official(path)
    encoder = MSVMUNet(3, 2).encoder
    _load_into(encoder, checkpoint.weights, kind=ENCODER_KIND, path=path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as temporary:
        write_tensors(encoder.state_dict(), temporary)
    return _record(path, checkpoint, kind=ENCODER_KIND, num_tensors=len(encoder.state_dict()))


def load_encoder(network: MSVMUNet, path: Path) -> None:
    """Load ImageNet weights into the encoder of an MSVM-UNet.

    Args:
        network: The network.
        path: VMamba's checkpoint, or the file from `import_encoder`.

    Raises:
        InputError: The file is missing, or its weights do not fit. The message lists all names.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file. The encoder's ImageNet weights are VMamba's vssm1_tiny_0230s_ckpt_epoch_264.pth "
            "from the releases of https://github.com/MzeroMiko/VMamba. Download it, or train without ImageNet weights "
            "by --from-scratch."
        )
    if path.suffix != ".safetensors":
        _load_into(network.encoder, read_official(path).weights, kind=ENCODER_KIND, path=path)
        return
    load_weights(network.encoder, read_tensors(path), source=path, name="encoder")


_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError),
    *(ImportError, OverflowError, struct.error),
)
"""Errors of unpickling a file that is not a checkpoint. No code of ours runs meanwhile."""


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint of torch without running its code.

    Only types that torch considers safe and numpy scalars are unpickled.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, not a dictionary, or holds unsafe objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        with torch.serialization.safe_globals(_safe_globals()), warnings.catch_warnings():
            # A file with another protocol is refused if it cannot be read.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, str(error))) from error
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint of torch, or damaged ({reason}).") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected a dictionary as checkpoint, got a {type(content).__name__}.")
    return content


def _safe_globals() -> list[Any]:
    """Return additional classes and functions that checkpoints may use safely."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    dtypes = [
        type(np.dtype(name))
        for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    ]
    return [
        *dtypes,
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        argparse.Namespace,
    ]


def _refusal(path: Path, reason: str) -> str:
    """Return a message about unsafe objects, with a workaround."""
    allowed = {
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "argparse.Namespace",
    }
    try:
        unsafe = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - allowed)
    except (pickle.UnpicklingError, *_UNREADABLE):
        # torch does not list the objects of some forms, but names the first one in its message.
        unsafe = re.findall(r"GLOBAL (\S+) (?:was not an allowed|whose module)", reason)
    if not unsafe:
        return f"{path}: not a checkpoint of torch, or damaged. Give the file that its training wrote."
    return (
        f"{path}: holds objects whose loading could run code, and is refused: {', '.join(unsafe)}. If you trust the "
        "file, save only its weights in its original environment: "
        'torch.save({"state_dict": checkpoint["state_dict"]}, "weights.pth"), or the same with `model` or '
        "`network_weights`."
    )


def _find_weights(path: Path, content: Mapping[str, Any]) -> tuple[Form, Mapping[str, Any]]:
    """Return the form of a checkpoint and the dictionary of its weights."""
    for key, form in _FORMS:
        if isinstance(content.get(key), Mapping):
            return form, content[key]
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return "state-dict", content
    keys = ", ".join(map(str, list(content)[:12])) or "nothing"
    expected = ", ".join(key for key, _ in _FORMS)
    raise InputError(f"{path}: expected weights under {expected}, or a plain state dict, got {keys}.")


def _without_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove a prefix if all names have it."""
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _load_into(network: nn.Module, weights: Mapping[str, Tensor], *, kind: str, path: Path) -> None:
    try:
        load_official(network, weights, kind=kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _record(path: Path, checkpoint: OfficialCheckpoint, *, kind: str, num_tensors: int) -> ImportRecord:
    return ImportRecord(
        source=path.name,
        sha256=checkpoint.sha256,
        form=checkpoint.form,
        network=kind,
        num_tensors=num_tensors,
        left_out=checkpoint.left_out,
    )
