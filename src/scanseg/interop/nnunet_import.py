"""Import of trainings of nnU-Net v2 as model folders."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scanseg.errors import InputError, UsageError
from scanseg.files import new_folder, write_text
from scanseg.interop.nnunet_documents import PLANS_FILE, read_plans
from scanseg.interop.nnunet_networks import NETWORK_PREFIX
from scanseg.interop.nnunet_plan import convert_plan
from scanseg.messages import listed
from scanseg.models import ModelFolder, load_checkpoint, load_weights, write_ensemble
from scanseg.networks import load_official, ours_to_official
from scanseg.specs import (
    EnsembleSpec,
    ImportedCheckpoint,
    NetworkSpec,
    NNUNetImportRecord,
    PlainUNetSpec,
    Plan,
    ResidualUNetSpec,
)

IMPORT_FILE = "import.json"
"""File of the import record in a model folder."""
_FOLD = re.compile(r"fold_(\d+|all)")
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
"""Prefixes from DistributedDataParallel and torch.compile."""
_OTHER_NETWORKS = re.compile(
    r"nnUNetTrainerBN|.*Primus.*|.*MedNeXt.*|.*UMamba.*|.*U_Mamba.*|.*SwinUNETR.*|.*UNETR.*|.*xLSTM.*",
    re.IGNORECASE,
)
"""Trainers that replace the network of the plans."""
_OWN_TRAINERS = re.compile(
    r"nnUNetTrainer(_?(\d+epochs?|[45]000epochs|NoMirroring|noDummy2DDA|onlyMirror01|1500ep|DA5?|DASegOrd0|DA5ord0"
    r"|DA5Segord0|DAOrd0|NoDA|CELoss|DiceLoss|DiceCELoss|noSmooth|Topk10Loss|Topk10LossLS01|DiceTopK10Loss|CosAnneal"
    r"|warmup|NoDeepSupervision|(Vanilla)?Adan?(m)?(\d+en\d+)?(CosAnneal)?|probabilisticOversampling|\d{3}"
    r"|Benchmark|noDataLoading))*"
)
"""Trainers of nnU-Net that keep the network of the plans."""


@dataclass(frozen=True, eq=False)
class _Training:
    """A folder of nnU-Net with one configuration."""

    folder: Path
    files: dict[str, Path]
    """Checkpoint of each fold."""
    plan: Plan
    record: NNUNetImportRecord
    previous_stage: str | None
    """Configuration of the first stage of a cascade."""


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """The part of nnU-Net's checkpoint that an import needs."""

    weights: dict[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]


def import_nnunet(
    folder: Path,
    output: Path,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "checkpoint_final.pth",
    first_stage: Path | None = None,
) -> NNUNetImportRecord:
    """Import a training of nnU-Net v2 as a model.

    No code of the checkpoints is run, and nnU-Net is not needed.

    Args:
        folder: Folder of the training (`TRAINER__PLANS__CONFIGURATION`), with `plans.json`, `dataset.json` and
            `fold_*`.
        output: New model folder to write. Several folds become an ensemble of model folders.
        folds: Folds to import: numbers, or `all`. Defaults to every numbered fold, or else to `all`.
        checkpoint: Name of the checkpoint file in the folder of a fold.
        first_stage: For a cascade: folder of the training of its first stage. `None`: the folder beside `folder` with
            the name of the first stage's configuration.

    Returns:
        The import record, which is also written to the model folder.

    Raises:
        InputError: A file is missing or damaged, or the training has settings that a model cannot express. The message
            names all of them, and nothing is written.
        UsageError: The output exists, or an argument does not fit the training.
    """
    ModelFolder.require_new(output)
    training = _open_training(folder, folds=folds, checkpoint=checkpoint)
    earlier = _open_first_stage(training, first_stage, folds=folds, checkpoint=checkpoint)
    with new_folder(output) as temporary:
        record = _write_model(training, temporary)
        if earlier is not None:
            _add_first_stage(earlier, temporary, folds=list(training.files))
    return record


def _open_training(folder: Path, *, folds: Sequence[str], checkpoint: str) -> _Training:
    """Read everything of a training but the weights, and check it.

    Raises:
        InputError: Files are missing or damaged, or settings cannot be expressed.
    """
    _check_folder(folder)
    plans = read_plans(folder / PLANS_FILE)
    files = _find_checkpoints(folder, folds=folds, checkpoint=checkpoint)
    first = _read_checkpoint(next(iter(files.values())))
    configuration = plans.configuration(first.configuration, folder / PLANS_FILE)
    _check_trainer(folder, first.trainer)
    plan, notes = convert_plan(folder, plans, configuration, mirror_axes=first.mirror_axes)
    if _OWN_TRAINERS.fullmatch(first.trainer) is None:
        notes.append(
            f"trainer {first.trainer} is not part of nnU-Net: its weights fit the network of the plans, and it is "
            "assumed to predict like nnUNetTrainer"
        )
    record = NNUNetImportRecord(
        source=folder.resolve().name,
        dataset=plans.dataset_name,
        plans=plans.plans_name,
        configuration=first.configuration,
        trainer=first.trainer,
        reader=plans.image_reader_writer,
        checkpoints=(),
        notes=tuple(notes),
    )
    return _Training(folder, files, plan, record, configuration.previous_stage)


def _check_folder(folder: Path) -> None:
    """Check that a folder is the training of a configuration.

    Raises:
        InputError: It is not. The message names folders that are.
    """
    if (folder / PLANS_FILE).is_file():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of nnU-Net, got no folder. Unpack archives first.")
    if (folder.parent / PLANS_FILE).is_file():
        raise InputError(
            f"{folder}: expected the folder of a training, got one of its folds. Give {folder.parent}."
        )
    inside = sorted(str(each.parent) for each in folder.glob(f"*/{PLANS_FILE}"))
    advice = f"Choose one of {listed(inside)}." if inside else "It has the files plans.json and dataset.json."
    raise InputError(
        f"{folder}: expected the folder of a training, got none ({PLANS_FILE} is missing). {advice}"
    )


def _find_checkpoints(folder: Path, *, folds: Sequence[str], checkpoint: str) -> dict[str, Path]:
    """Return the checkpoint of each fold to import.

    Raises:
        InputError: No fold has a checkpoint.
        UsageError: A fold is missing, or the name of the checkpoint is a path.
    """
    if Path(checkpoint).name != checkpoint:
        raise UsageError(f"checkpoint: expected the name of a file in fold_*, got {checkpoint}.")
    names = sorted(each.name for each in folder.glob("fold_*") if _FOLD.fullmatch(each.name))
    found = {name.removeprefix("fold_"): folder / name / checkpoint for name in names}
    found = {fold: path for fold, path in found.items() if path.is_file()}
    if not found:
        others = sorted({path.name for path in folder.glob("fold_*/checkpoint_*.pth")})
        advice = f"Choose one of {listed(others)}." if others else "Its training has not finished."
        raise InputError(f"{folder}: no fold has the file {checkpoint}. {advice}")
    missing = [fold for fold in folds if fold not in found]
    if missing:
        raise UsageError(f"folds: expected some of {listed(list(found))}, got {listed(missing)}.")
    numbered = sorted((fold for fold in found if fold != "all"), key=int)
    chosen = list(dict.fromkeys(folds)) or numbered or ["all"]
    return {fold: found[fold] for fold in chosen}


def _open_first_stage(
    training: _Training, first_stage: Path | None, *, folds: Sequence[str], checkpoint: str
) -> _Training | None:
    """Open the first stage of a cascade, if the training has one.

    Raises:
        InputError: The first stage is missing or does not fit.
        UsageError: A first stage is given, but the training is no second stage.
    """
    if training.previous_stage is None:
        if first_stage is not None:
            raise UsageError(
                f"first stage: {training.record.configuration} is no second stage of a cascade. Leave it out."
            )
        return None
    if first_stage is None:
        name = training.folder.resolve().name.rpartition("__")[0]
        first_stage = training.folder.resolve().with_name(f"{name}__{training.previous_stage}")
        if not first_stage.is_dir():
            raise InputError(
                f"{training.folder}: expected its first stage ({training.previous_stage}) in {first_stage}, got no "
                "folder. Give the folder of its training by --first-stage."
            )
    opened = _open_training(first_stage, folds=folds, checkpoint=checkpoint)
    if opened.record.configuration != training.previous_stage:
        raise InputError(
            f"{first_stage}: expected the configuration {training.previous_stage} as first stage, got "
            f"{opened.record.configuration}."
        )
    if opened.previous_stage is not None or opened.plan.dataset != training.plan.dataset:
        raise InputError(
            f"{first_stage}: expected a single stage with the labels and channels of the second stage."
        )
    return opened


def _write_model(training: _Training, output: Path) -> NNUNetImportRecord:
    """Write one model folder per fold, with an ensemble of several.

    Raises:
        InputError: Weights do not fit, or the folds differ in more than weights.
    """
    checkpoints = []
    is_single = len(training.files) == 1
    for fold, path in training.files.items():
        member = ModelFolder.create(output if is_single else output / f"fold_{fold}", training.plan)
        num_tensors = _write_weights(training, path, member)
        checkpoints.append(
            ImportedCheckpoint(
                fold=fold,
                file=path.relative_to(training.folder).as_posix(),
                sha256=_digest(path),
                num_tensors=num_tensors,
            )
        )
    record = training.record.model_copy(update={"checkpoints": tuple(checkpoints)})
    write_text(output / IMPORT_FILE, record.to_json())
    if not is_single:
        write_ensemble(output, EnsembleSpec(members=tuple(f"fold_{fold}" for fold in training.files)))
    return record


def _write_weights(training: _Training, path: Path, member: ModelFolder) -> int:
    """Write the weights of a fold and return their number."""
    checkpoint = _read_checkpoint(path)
    own = checkpoint.trainer, checkpoint.configuration, checkpoint.mirror_axes
    record = training.record
    expected = record.trainer, record.configuration, training.plan.inference.mirror_axes
    if own != expected:
        raise InputError(
            f"{path}: expected trainer, configuration and mirror axes of the first fold {expected}, got {own}. Import "
            "the folds one by one."
        )
    network = member.build_network()
    _load(network, checkpoint.weights, training.plan.network, path)
    member.write_weights(network.state_dict())
    return len(network.state_dict())


def _load(network: nn.Module, weights: Mapping[str, Tensor], spec: NetworkSpec, path: Path) -> None:
    """Load the weights of a checkpoint into a network.

    Raises:
        InputError: Names or shapes differ. The message lists all differences.
    """
    if not isinstance(spec, PlainUNetSpec | ResidualUNetSpec):
        own = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in weights.items()}
        load_weights(network, own, source=path)
        return
    kind = spec.kind
    official = ours_to_official(network.state_dict(), kind=kind)
    absent = {name for name in official if name.endswith(".bias") and name not in weights}
    zeros = {name: torch.zeros_like(official[name]) for name in absent if _is_convolution(name, official)}
    has_bias = any(name.endswith("conv.bias") for name in weights)
    try:
        # A network without biases (conv_bias) equals one with biases of 0.
        load_official(network, {**weights, **({} if has_bias else zeros)}, kind=kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _is_convolution(name: str, official: Mapping[str, Tensor]) -> bool:
    """Return whether a bias belongs to a convolution."""
    weight = official.get(f"{name.removesuffix('.bias')}.weight")
    return weight is not None and weight.ndim > 1 and not name.startswith("decoder.seg_layers.")


def _add_first_stage(training: _Training, output: Path, *, folds: Sequence[str]) -> None:
    """Write the first stage into each member. Members after the first have links, if the disk supports them."""
    members = [output] if len(folds) == 1 else [output / f"fold_{fold}" for fold in folds]
    targets = [ModelFolder.open(member).first_stage_path for member in members]
    targets[0].mkdir()
    _write_model(training, targets[0])
    for target in targets[1:]:
        shutil.copytree(targets[0], target, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """Make a hard link, or a copy on a disk without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _read_checkpoint(path: Path) -> _Checkpoint:
    """Read a checkpoint of nnU-Net.

    Raises:
        InputError: The file is missing or damaged, holds unsafe objects, or is no checkpoint of nnU-Net v2.
    """
    content = load_checkpoint(path)
    weights, arguments = content.get("network_weights"), content.get("init_args")
    if not isinstance(weights, Mapping) or not isinstance(arguments, Mapping):
        raise InputError(
            f"{path}: expected a checkpoint of nnU-Net v2 with network_weights and init_args, got "
            f"{listed([str(key) for key in content])}."
        )
    trainer, configuration = content.get("trainer_name"), arguments.get("configuration")
    if not isinstance(trainer, str) or not isinstance(configuration, str):
        raise InputError(
            f"{path}: expected the names of trainer and configuration as text, got other values."
        )
    return _Checkpoint(
        weights=dict(_named_tensors(weights)),
        trainer=trainer,
        configuration=configuration,
        mirror_axes=_mirror_axes(path, content.get("inference_allowed_mirroring_axes")),
    )


def _named_tensors(weights: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors with their names, without prefixes of wrappers."""
    for name, tensor in weights.items():
        if isinstance(tensor, Tensor):
            yield (
                _WRAPPERS.sub("", str(name))
                .replace(".skip.0.conv.", ".skip.1.conv.")
                .replace(".skip.0.norm.", ".skip.1.norm."),
                tensor,
            )


def _mirror_axes(path: Path, value: object) -> tuple[int, ...]:
    """Return the axes of mirroring of a checkpoint. `None`: no axes."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(axis, int) for axis in value):
        raise InputError(f"{path}: inference_allowed_mirroring_axes: expected whole numbers, got {value!r}.")
    return tuple(sorted(value))


def _check_trainer(folder: Path, trainer: str) -> None:
    """Check that a trainer keeps the network of the plans.

    Raises:
        InputError: It replaces the network.
    """
    if _OTHER_NETWORKS.fullmatch(trainer) is None:
        return
    advice = (
        " Weights of xLSTM-UNet are imported by scanseg weights import --network xlstm-unet --plan PLAN."
        if "xlstm" in trainer.lower()
        else ""
    )
    raise InputError(
        f"{folder}: cannot be imported: the trainer {trainer} replaces the network of the plans. Supported are the "
        f"networks PlainConvUNet and ResidualEncoderUNet.{advice}"
    )


def _digest(path: Path) -> str:
    """Return the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
