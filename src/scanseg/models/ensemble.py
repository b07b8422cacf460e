"""A model of several models: a folder with `ensemble.json`, which names them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.files import write_text
from scanseg.models.folder import ModelFolder, Weights
from scanseg.specs import EnsembleSpec, Plan, PostprocessingSpec

_FILE = "ensemble.json"
_PAIRS = "ensembles"
"""Folder, in that of the study, of the pairs' label maps of validation cases."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """What prediction needs of a model folder, of one network or several."""

    plan: Plan
    network: nn.Module
    postprocessing: PostprocessingSpec
    first_stage: "LoadedModel | None" = None
    """The first stage of a cascade."""
    members: "tuple[LoadedModel, ...]" = ()
    """Models of other plans, with whose probabilities those of this one are averaged."""


class LogitEnsemble(nn.Module):
    """Several networks whose logits are averaged."""

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
    """Load a model folder, or a folder of several, of one plan or of different ones.

    Args:
        path: The folder.
        device: Where to predict.
        weights: Those that the trainings chose to export, the last, or the best on validation patches.

    Raises:
        InputError: It is no model, a training has not finished, or the models do not predict in the same way.
    """
    if not is_ensemble(path):
        folder = ModelFolder.open(path)
        network = folder.load_network(device=device, weights=weights)
        return LoadedModel(
            folder.plan, network, PostprocessingSpec(), _load_first_stage(folder, device=device)
        )
    spec = read_ensemble(path)
    if spec.average == "probabilities":
        return _load_plans(path, spec, device=device, weights=weights)
    folders = [ModelFolder.open(path / member) for member in spec.members]
    plan = folders[0].plan
    for folder in folders[1:]:
        differing = _differing(
            folder.plan, plan, ("dataset", "num_axes", "preprocessing", "inference", "cascade")
        )
        if folder.plan.sampling.patch_size != plan.sampling.patch_size:
            differing.append("sampling.patch_size")
        _refuse(differing, folder.path, folders[0].path, what="make an ensemble of models of one plan")
    networks = [folder.load_network(device=device, weights=weights) for folder in folders]
    previous = _load_first_stage(folders[0], device=device)
    return LoadedModel(plan, LogitEnsemble(networks).eval(), spec.postprocessing, previous)


def _load_plans(path: Path, spec: EnsembleSpec, *, device: torch.device, weights: Weights) -> LoadedModel:
    """Load models of different plans; what each would do to label maps by itself is left out."""
    first, *others = (load_model(path / member, device=device, weights=weights) for member in spec.members)
    for member, other in zip(spec.members[1:], others, strict=True):
        differing = _differing(other.plan, first.plan, ("dataset", "num_axes"))
        _refuse(
            differing,
            path / member,
            path / spec.members[0],
            what="make an ensemble of models of the same channels and labels",
        )
    return replace(first, postprocessing=spec.postprocessing, members=tuple(others))


def _differing(plan: Plan, other: Plan, names: tuple[str, ...]) -> list[str]:
    """Return the parts in which plans differ."""
    return [name for name in names if getattr(plan, name) != getattr(other, name)]


def _refuse(differing: list[str], path: Path, first: Path, *, what: str) -> None:
    """Refuse models that do not predict alike."""
    if differing:
        raise InputError(
            f"{path} cannot predict together with {first}: their plans differ in {', '.join(differing)}. Predict with "
            f"each, or {what}."
        )


def _load_first_stage(folder: ModelFolder, *, device: torch.device) -> LoadedModel | None:
    """Load the first stage of a cascade, which lies in the folder of the second."""
    return None if folder.plan.cascade is None else load_model(folder.first_stage_path, device=device)


def is_ensemble(path: Path) -> bool:
    """Return whether a folder is a model of several models."""
    return (path / _FILE).is_file()


def read_ensemble(path: Path) -> EnsembleSpec:
    """Read the members of a folder that is a model of several models.

    Raises:
        InputError: The folder is no such model.
    """
    return EnsembleSpec.read(path / _FILE)


def write_ensemble(path: Path, spec: EnsembleSpec) -> None:
    """Make a folder a model of the models that it holds."""
    write_text(path / _FILE, spec.to_json())


def member_folders(path: Path) -> list[Path]:
    """Return the folders of the single models of which a folder is a model, also where its members are several.

    Args:
        path: A model of one or several.
    """
    if not is_ensemble(path):
        return [path]
    return [each for member in read_ensemble(path).members for each in member_folders(path / member)]


def require_single(path: Path) -> None:
    """Make sure that a folder is not a model of several, where the weights of one are wanted.

    Raises:
        InputError: It is.
    """
    if is_ensemble(path):
        members = ", ".join(map(str, member_folders(path)))
        raise InputError(f"{path} is a model of several; begin with one of them: {members}.")


def pair_prediction_path(study: Path, names: Sequence[str], case: str) -> Path:
    """Return where the label map of a validation case, predicted by a pair, is kept.

    Args:
        study: The study's folder.
        names: Names of the ways to plan.
        case: The case.
    """
    return study / _PAIRS / "+".join(names) / f"{case}.b2nd"
