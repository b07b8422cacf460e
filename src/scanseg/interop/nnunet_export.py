"""Export of plans and models to nnU-Net v2."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scanseg.interop.nnunet_trainer as trainers
from scanseg.errors import UsageError
from scanseg.files import new_folder, write_text
from scanseg.interop.nnunet_configuration import list_notes, make_configuration, make_plans
from scanseg.interop.nnunet_documents import PLANS_FILE
from scanseg.interop.nnunet_networks import NETWORK_PREFIX
from scanseg.messages import listed
from scanseg.models import ModelFolder, is_ensemble, read_ensemble, require_single
from scanseg.networks import ours_to_official
from scanseg.planning import PlanRequest, TrainingSource, find_plan, replace_network
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec, PlainUNetSpec, Plan, ResidualUNetSpec

TRAINER = "nnUNetTrainerScanseg"
"""Name of our trainer for nnU-Net."""
_NAME = re.compile(r"Dataset\d{3}_\S+")
_CHECKPOINT = "checkpoint_final.pth"
_USUAL_TRAINER = "nnUNetTrainer"


@dataclass(frozen=True)
class ExportedPlans:
    """The result of an export of plans."""

    dataset_name: str
    """Name of the data set in nnU-Net."""
    plans_name: str
    """Name of the plans."""
    configurations: tuple[str, ...]
    """Names of the configurations."""
    prepared: tuple[str, ...]
    """Names of the configurations to preprocess. The others read the same cases."""
    trainer: str
    """Name of the trainer class."""
    trainer_folder: Path
    """Folder for nnU-Net's variable `nnUNet_extTrainer`."""
    notes: tuple[str, ...]
    """Differences from our preprocessing."""


@dataclass(frozen=True)
class ExportedTraining:
    """The result of an export of a model."""

    folds: tuple[str, ...]
    """Names of the folds."""
    notes: tuple[str, ...]
    """Differences from our preprocessing."""


def export_nnunet_plans(
    source: Path,
    output: Path,
    *,
    dataset_name: str | None = None,
    request: PlanRequest | None = None,
    context: RunContext,
) -> ExportedPlans:
    """Write plans for nnU-Net that train networks of ours.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: JSON file to write. nnU-Net finds it as `nnUNet_preprocessed/DATASET/PLANS.json`.
        dataset_name: Name of the data set in nnU-Net, such as `Dataset004_Hippocampus`. `None`: the name of the folder
            of the data set or of the output, if it has this form.
        request: Recipe and settings. A recipe gives one configuration. `None`, or no recipe: for a data set `2d` and
            `3d_fullres` with xLSTM-UNet, and `2d_msvm_unet` with MSVM-UNet.
        context: Worker processes and progress.

    Returns:
        Names that `nnUNetv2_train` needs.

    Raises:
        InputError: The data set or the plan is faulty, or nnU-Net has no such preprocessing.
        UsageError: The name of the data set is unknown or invalid, or nnU-Net does not read its files.
    """
    request = request or PlanRequest()
    if output.suffix != ".json":
        raise UsageError(
            f"{output}: expected a file that ends in .json. Write for example nnUNetPlans_scanseg.json."
        )
    opened = TrainingSource.open(source)
    name = _find_dataset_name(dataset_name, source=opened, output=output)
    plans = _make_plans(opened, request, context=context)
    configurations = {
        configuration: make_configuration(plan, data_identifier=f"{output.stem}_{_data_of(configuration)}")
        for configuration, plan in plans.items()
    }
    last = list(plans.values())[-1]
    content = make_plans(configurations, last, dataset_name=name, plans_name=output.stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(content, indent=4) + "\n")
    return ExportedPlans(
        dataset_name=name,
        plans_name=output.stem,
        configurations=tuple(configurations),
        prepared=tuple(dict.fromkeys(map(_data_of, configurations))),
        trainer=TRAINER,
        trainer_folder=Path(str(trainers.__file__)).parent,
        notes=list_notes(last),
    )


def _data_of(configuration: str) -> str:
    """Return the configuration whose preprocessed cases a configuration reads."""
    return "2d" if configuration.startswith("2d") else configuration


def _find_dataset_name(given: str | None, *, source: TrainingSource, output: Path) -> str:
    """Return the name of the data set in nnU-Net.

    Raises:
        UsageError: No name is given or found, or it has another form.
    """
    if given is not None:
        if _NAME.fullmatch(given) is None:
            raise UsageError(f"data set: expected a name like Dataset004_Hippocampus, got {given}.")
        return given
    folder = source.raw_folder()
    for path in (output.absolute().parent, *(() if folder is None else (folder.resolve(),))):
        if _NAME.fullmatch(path.name):
            return path.name
    raise UsageError(
        f"{source.path}: the name of the data set in nnU-Net is unknown. Give it by --dataset-name "
        "Dataset004_Hippocampus, or write into its folder in nnUNet_preprocessed."
    )


def _make_plans(source: TrainingSource, request: PlanRequest, *, context: RunContext) -> dict[str, Plan]:
    """Return our plans by the names of nnU-Net's configurations."""
    if source.plan is not None or request.recipe is not None or request.like is not None:
        plan = find_plan(source, request, context=context)
        return {"3d_fullres" if len(plan.sampling.patch_size) == 3 else "2d": plan}
    slices = PlanRequest("xlstm-unet-2d", request.size, None, request.settings)
    flat = find_plan(source, slices, context=context)
    plans = {"2d": flat, "2d_msvm_unet": replace_network(flat, "msvm-unet")}
    if flat.num_axes == 3:
        volumes = PlanRequest("xlstm-unet", request.size, None, request.settings)
        plans["3d_fullres"] = find_plan(source, volumes, context=context)
    return plans


def export_nnunet_model(source: Path, output: Path) -> ExportedTraining:
    """Write a model as a folder of a training of nnU-Net.

    nnU-Net's own networks become nnU-Net's. Other networks need scanseg in the environment of nnU-Net.

    Args:
        source: Model folder, or folder of an ensemble of one plan, such as a cross-validation.
        output: New folder to write.

    Returns:
        Names of the folds, and differences.

    Raises:
        InputError: The model is unfinished, or nnU-Net has no such preprocessing.
        UsageError: The output exists, or the members of the model have different plans.
    """
    ModelFolder.require_new(output)
    members = _find_members(source)
    plan = members[0].plan
    if any(member.plan != plan for member in members):
        raise UsageError(
            f"{source}: expected members of one plan, got different ones. Export the members one by one."
        )
    configuration = "3d_fullres" if len(plan.sampling.patch_size) == 3 else "2d"
    configurations = {configuration: make_configuration(plan, data_identifier=f"scanseg_{configuration}")}
    name = plan.dataset.name if _NAME.fullmatch(plan.dataset.name) else f"Dataset999_{plan.dataset.name}"
    content = make_plans(configurations, plan, dataset_name=name, plans_name="nnUNetPlans_scanseg")
    dataset = _describe_dataset(plan.dataset)
    with new_folder(output) as temporary:
        write_text(temporary / PLANS_FILE, json.dumps(content, indent=4) + "\n")
        write_text(temporary / "dataset.json", json.dumps(dataset, indent=4) + "\n")
        for fold, member in enumerate(members):
            arguments = {
                "plans": content,
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dataset,
            }
            _write_checkpoint(member, temporary / f"fold_{fold}", arguments)
    return ExportedTraining(tuple(str(fold) for fold in range(len(members))), list_notes(plan))


def _find_members(source: Path) -> list[ModelFolder]:
    """Return the models of a folder.

    Raises:
        UsageError: The folder averages probabilities, which a folder of nnU-Net cannot.
    """
    if not is_ensemble(source):
        return [ModelFolder.open(source)]
    spec = read_ensemble(source)
    if spec.average != "logits":
        raise UsageError(
            f"{source}: expected members of one plan, got an ensemble of plans ({listed(spec.members)}). Export its "
            "members one by one, and average them by nnUNetv2_ensemble."
        )
    for member in spec.members:
        require_single(source / member)
    return [ModelFolder.open(source / member) for member in spec.members]


def _describe_dataset(dataset: DatasetSpec) -> dict[str, Any]:
    """Return `dataset.json` of a data set."""
    described: dict[str, Any] = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channel_names)},
        "labels": {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataset.labels.items()
        },
        "numTraining": 0,
        "file_ending": dataset.file_ending,
    }
    if dataset.regions_class_order is not None:
        described["regions_class_order"] = list(dataset.regions_class_order)
    return described


def _write_checkpoint(member: ModelFolder, folder: Path, arguments: Mapping[str, Any]) -> None:
    """Write the checkpoint of a fold as nnU-Net does."""
    network = member.load_network(device=torch.device("cpu"))
    folder.mkdir()
    axes = member.plan.inference.mirror_axes
    torch.save(
        {
            "network_weights": _official_weights(network.state_dict(), member.plan),
            "optimizer_state": None,
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": member.plan.training.epochs,
            "init_args": dict(arguments),
            "trainer_name": _USUAL_TRAINER,
            "inference_allowed_mirroring_axes": axes or None,
        },
        folder / _CHECKPOINT,
    )


def _official_weights(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return weights under nnU-Net's names, with its duplicates."""
    spec = plan.network
    if not isinstance(spec, PlainUNetSpec | ResidualUNetSpec):
        return {NETWORK_PREFIX + name: tensor for name, tensor in state.items()}
    official = ours_to_official(state, kind=spec.kind)
    flat = {f"encoder.stages.{number}." for number, stride in enumerate(spec.strides) if max(stride) == 1}
    named = {
        name.replace(".skip.1.", ".skip.0.")
        if any(name.startswith(stage) for stage in flat)
        else name: tensor
        for name, tensor in official.items()
    }
    # nnU-Net stores the layers of a block twice, and the encoder again as part of the decoder.
    twice = {
        re.sub(r"\.(conv|norm)\.(weight|bias)$", _number_of_layer, name): tensor
        for name, tensor in named.items()
    }
    every = named | twice
    return every | {
        f"decoder.{name}": tensor for name, tensor in every.items() if name.startswith("encoder.")
    }


def _number_of_layer(match: re.Match[str]) -> str:
    """Return the name of a layer by its number in a block."""
    number = 0 if match[1] == "conv" else 1
    return f".all_modules.{number}.{match[2]}"
