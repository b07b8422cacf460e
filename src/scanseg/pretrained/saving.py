"""Trained models in a form to share, without names of cases and paths."""

import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import torch
from torch import Tensor

from scanseg.errors import InputError, UsageError
from scanseg.files import new_folder, write_text, written_whole
from scanseg.models import (
    ModelFolder,
    copy_calibration,
    is_ensemble,
    member_folders,
    read_ensemble,
    read_tensors,
    write_ensemble,
)
from scanseg.pretrained.card import CARD_FILE, make_card
from scanseg.specs import Plan

WeightType = Literal["float32", "float16"]
"""Type of stored weights. The network computes in the precision of its plan in any case."""

_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of all files in an archive, so that equal models have equal checksums."""


def save_model(
    model: Path,
    output: Path,
    *,
    weight_type: WeightType = "float32",
    name: str | None = None,
    about: str | None = None,
) -> None:
    """Save a trained model to share it.

    The output holds the plan, the exported weights and the card. Names of cases, paths, host names, checkpoints and
    label maps are left out.

    Args:
        model: Model folder, or folder of a cross-validation.
        output: Folder to write, or a file ending in `.zip`. It must not exist.
        weight_type: Type of the stored weights. `float16` halves their size.
        name: Name of the model, for the card. `None`: the name of the output.
        about: Text in Markdown for the card, such as source and licence of the data.

    Raises:
        InputError: The model has no weights yet, or a weight is too large for float16.
        UsageError: The output exists, or the type is unknown.
    """
    if weight_type not in get_args(WeightType):
        raise UsageError(
            f"weight_type: expected one of {', '.join(get_args(WeightType))}, got {weight_type!r}"
        )
    if output.exists():
        raise UsageError(f"{output} exists. Choose another name, or remove it.")
    is_archive = output.suffix.lower() == ".zip"
    card = make_card(model, name=name or (output.stem if is_archive else output.resolve().name), about=about)
    if not is_archive:
        with new_folder(output) as folder:
            _save(model, folder, weight_type)
            write_text(folder / CARD_FILE, card)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, written_whole(output) as archive:
        _save(model, Path(folder), weight_type)
        write_text(Path(folder, CARD_FILE), card)
        _pack(Path(folder), archive)


def _save(model: Path, target: Path, weight_type: WeightType) -> None:
    """Save a model, its members and its first stage."""
    if is_ensemble(model):
        spec = read_ensemble(model)
        for member in spec.members:
            _save(model / member, target / member, weight_type)
        write_ensemble(target, spec)
        copy_calibration(model, target, member_folders(target))
        return
    folder = ModelFolder.open(model)
    path = folder.weights_path()
    weights = {name: _as_type(name, tensor, weight_type, path) for name, tensor in read_tensors(path).items()}
    saved = ModelFolder.create(target, _without_paths(folder.plan))
    saved.write_weights(weights)
    copy_calibration(model, target, [target])
    if folder.plan.cascade is not None:
        _save(folder.first_stage_path, saved.first_stage_path, weight_type)


def _without_paths(plan: Plan) -> Plan:
    """Return a plan without the folders of this machine."""
    cascade = None if plan.cascade is None else plan.cascade.model_copy(update={"first_stage": None})
    return plan.model_copy(update={"dataset_path": None, "cascade": cascade})


def _as_type(name: str, tensor: Tensor, weight_type: WeightType, path: Path) -> Tensor:
    """Convert a tensor of floats.

    Raises:
        InputError: A finite value would become infinite.
    """
    if not tensor.is_floating_point() or weight_type == "float32":
        return tensor
    converted = tensor.to(torch.float16)
    if bool((converted.isinf() & tensor.isfinite()).any()):
        raise InputError(
            f"{path}: {name}: expected values below 65504 for float16, got {float(tensor.abs().max()):.3g}. Save "
            "float32."
        )
    return converted


def _pack(folder: Path, archive: Path) -> None:
    """Write the files of a folder to a zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(PurePosixPath(path.relative_to(folder)).as_posix(), _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes())
