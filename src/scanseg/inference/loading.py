"""Loading of a model folder as a predictor."""

from dataclasses import replace
from pathlib import Path

import torch

from scanseg.inference.postprocessing import NOTHING
from scanseg.inference.predictor import Predictor
from scanseg.models import LoadedModel, Weights, load_model
from scanseg.runtime import Precision, choose_device


def load(
    path: Path | str,
    *,
    device: str = "auto",
    weights: Weights = "exported",
    precision: Precision | None = None,
    cuda_graph: bool = True,
) -> Predictor:
    """Load a model for prediction.

    Args:
        path: Model folder, or folder of a cross-validation, whose folds predict as an ensemble.
        device: Name of the device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        weights: Weights to load: `exported`, `last` or `best` (highest Dice on validation patches). If the training
            has not finished, `exported` loads the weights of its last checkpoint, and predictions have a warning.
        precision: Precision of the network's products. `None`: that of the plan's training.
        cuda_graph: Replay passes as a CUDA graph on a GPU with CUDA, see `Predictor`.

    Returns:
        Predictor of the model, with its first stage (cascade) and its members (ensemble).

    Raises:
        InputError: The folder is not a model folder, or its training has no weights yet.
        UsageError: The device is not available, or does not support the precision.
        ScansegError: The network does not fit into memory.
    """
    chosen = choose_device(device)
    model = load_model(Path(path), device=chosen, weights=weights)
    name = str(path) if weights == "exported" else f"{path} ({weights} weights)"
    return _predictor_of(model, name, device=chosen, precision=precision, cuda_graph=cuda_graph)


def _predictor_of(
    model: LoadedModel, name: str, *, device: torch.device, precision: Precision | None, cuda_graph: bool
) -> Predictor:
    """Return the predictor of a loaded model, with first stage and members.

    The labels of a first stage are not postprocessed, as in the training of the second stage.
    """

    def make(part: LoadedModel) -> Predictor:
        return _predictor_of(part, name, device=device, precision=precision, cuda_graph=cuda_graph)

    return Predictor(
        model.plan,
        model.network,
        device=device,
        model=name,
        postprocessing=model.postprocessing,
        first_stage=None
        if model.first_stage is None
        else make(replace(model.first_stage, postprocessing=NOTHING)),
        members=[make(member) for member in model.members],
        precision=precision,
        cuda_graph=cuda_graph,
        warnings=model.warnings,
    )
