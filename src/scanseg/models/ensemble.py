"""Ensembles: folders with `ensemble.json`, which names the member models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.files import make_folder, write_text
from scanseg.messages import listed
from scanseg.models.calibration import read_temperatures
from scanseg.models.folder import ModelFolder, Weights
from scanseg.specs import EnsembleSpec, Plan, PostprocessingSpec

_FILE = "ensemble.json"
_PAIRS = "ensembles"
"""Folder of the pairs' label maps of validation cases, in the folder of the cross-validation."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A loaded model for prediction, with one network or several."""

    plan: Plan
    network: nn.Module
    """The network, or a `LogitEnsemble` of several."""
    postprocessing: PostprocessingSpec
    first_stage: "LoadedModel | None" = None
    """The first stage of a cascade."""
    members: "tuple[LoadedModel, ...]" = ()
    """Models of other plans. Their probabilities and those of this model are averaged."""
    warnings: tuple[str, ...] = ()
    """Reasons to distrust the predictions, such as an unfinished training."""
    temperatures: tuple[float, ...] | None = None
    """Temperature of each output. `None`: the probabilities are not calibrated."""


class LogitEnsemble(nn.Module):
    """Average the logits of several networks."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Float[Tensor, "batch channel *axes"]) -> Float[Tensor, "batch output *axes"]:
        """Return the mean logits."""
        total = self.networks[0](images).float()
        for network in list(self.networks)[1:]:
            total = total + network(images).float()
        return total / len(self.networks)


def load_model(path: Path, *, device: torch.device, weights: Weights = "exported") -> LoadedModel:
    """Load a model folder or an ensemble.

    Args:
        path: Model folder, or folder of an ensemble. Its members have the same plan, or different ones.
        device: Device of the prediction.
        weights: Weights to load: `exported`, `last` or `best` (highest validation Dice). If the training of a single
            model has not finished, `exported` loads the weights of its last checkpoint, with a warning.

    Raises:
        InputError: The folder is not a model, a training has not finished, or the members do not fit together.
    """
    if not is_ensemble(path):
        folder = ModelFolder.open(path)
        unfinished = weights == "exported" and not folder.has_weights() and folder.has_checkpoint()
        network = folder.load_network(device=device, weights="checkpoint" if unfinished else weights)
        temperatures, warnings = _find_temperatures(path, folder.plan, weights)
        return LoadedModel(
            folder.plan,
            network,
            PostprocessingSpec(),
            _load_first_stage(folder, device=device),
            warnings=(*((_describe_unfinished(folder),) if unfinished else ()), *warnings),
            temperatures=temperatures,
        )
    spec = read_ensemble(path)
    if spec.average == "probabilities":
        return _load_plans(path, spec, device=device, weights=weights)
    return _load_logits(path, spec, device=device, weights=weights)


def _find_temperatures(
    path: Path, plan: Plan, weights: Weights
) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Read the temperatures of the exported weights, and warnings.

    Other weights are not calibrated.
    """
    return read_temperatures(path, plan) if weights == "exported" else (None, ())


def _describe_unfinished(folder: ModelFolder) -> str:
    """Return a warning about the weights of a checkpoint."""
    record, planned = folder.read_run(), folder.plan.training.epochs
    done = "" if record is None else f" ({record.epochs_done} of {planned} epochs)"
    return f"{folder.path}: the training has not finished{done}. Its last checkpoint predicts"


def _load_logits(path: Path, spec: EnsembleSpec, *, device: torch.device, weights: Weights) -> LoadedModel:
    """Load members of one plan."""
    folders = [ModelFolder.open(path / member) for member in spec.members]
    plan = folders[0].plan
    for folder in folders[1:]:
        differing = _differing(
            folder.plan, plan, ("dataset", "num_axes", "preprocessing", "inference", "cascade")
        )
        if folder.plan.sampling.patch_size != plan.sampling.patch_size:
            differing.append("sampling.patch_size")
        _check_compatible(
            differing, folder.path, folders[0].path, advice="make an ensemble of models with the same plan"
        )
    _check_labels(path, spec, plan)
    networks = [folder.load_network(device=device, weights=weights) for folder in folders]
    first_stage = _load_first_stage(folders[0], device=device)
    temperatures, warnings = _find_temperatures(path, plan, weights)
    return LoadedModel(
        plan,
        LogitEnsemble(networks).eval(),
        spec.postprocessing,
        first_stage,
        warnings=warnings,
        temperatures=temperatures,
    )


def _load_plans(path: Path, spec: EnsembleSpec, *, device: torch.device, weights: Weights) -> LoadedModel:
    """Load members with different plans, without their own postprocessing."""
    first, *members = (load_model(path / member, device=device, weights=weights) for member in spec.members)
    for member, other in zip(spec.members[1:], members, strict=True):
        differing = _differing(other.plan, first.plan, ("dataset", "num_axes"))
        _check_compatible(
            differing,
            path / member,
            path / spec.members[0],
            advice="make an ensemble of models with the same channels and labels",
        )
    _check_labels(path, spec, first.plan)
    # The mean of calibrated probabilities would decide other labels than the mean of uncalibrated ones.
    first, *members = (replace(each, temperatures=None) for each in (first, *members))
    return replace(first, postprocessing=spec.postprocessing, members=tuple(members))


def _check_labels(path: Path, spec: EnsembleSpec, plan: Plan) -> None:
    """Check that the postprocessing names labels of the plan."""
    names = tuple(plan.dataset.foreground)
    unknown = [name for name in spec.postprocessing.largest_component if name not in names]
    if unknown:
        raise InputError(
            f"{path / _FILE}: postprocessing.largest_component: expected labels of the models ({listed(names)}), got "
            f"{listed(unknown)}. Correct the names, or remove them."
        )


def _differing(plan: Plan, other: Plan, names: tuple[str, ...]) -> list[str]:
    """Return the sections in which two plans differ."""
    return [name for name in names if getattr(plan, name) != getattr(other, name)]


def _check_compatible(differing: list[str], path: Path, first: Path, *, advice: str) -> None:
    """Raise an error if the plans of two members differ."""
    if differing:
        raise InputError(
            f"{path} cannot predict together with {first}: their plans differ in {', '.join(differing)}. Predict with "
            f"each, or {advice}."
        )


def _load_first_stage(folder: ModelFolder, *, device: torch.device) -> LoadedModel | None:
    """Load the first stage of a cascade, if the plan has one."""
    return None if folder.plan.cascade is None else load_model(folder.first_stage_path, device=device)


def is_ensemble(path: Path) -> bool:
    """Return whether a folder is an ensemble."""
    return (path / _FILE).is_file()


def read_ensemble(path: Path) -> EnsembleSpec:
    """Read the members of an ensemble.

    Raises:
        InputError: The folder is not an ensemble.
    """
    return EnsembleSpec.read(path / _FILE)


def write_ensemble(path: Path, spec: EnsembleSpec) -> None:
    """Make a folder an ensemble of the models in it."""
    make_folder(path)
    write_text(path / _FILE, spec.to_json())


def member_folders(path: Path) -> list[Path]:
    """Return the folders of all single models of a model.

    Args:
        path: A model folder or an ensemble. Ensembles in it are resolved too.
    """
    if not is_ensemble(path):
        return [path]
    return [each for member in read_ensemble(path).members for each in member_folders(path / member)]


def require_single(path: Path) -> None:
    """Check that a folder is not an ensemble.

    Raises:
        InputError: The folder is an ensemble.
    """
    if is_ensemble(path):
        members = ", ".join(map(str, member_folders(path)))
        raise InputError(f"{path} is an ensemble. Choose one of its members: {members}.")


def pair_prediction_path(crossval: Path, names: Sequence[str], case: str) -> Path:
    """Return the file of a pair's label map of a validation case.

    Args:
        crossval: Folder of the cross-validation.
        names: Names of both configurations.
        case: Name of the case.
    """
    return crossval / _PAIRS / "+".join(names) / f"{case}.b2nd"
