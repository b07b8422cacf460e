"""From a model folder, of one network or several, to what predicts."""

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
        path: The model folder, or that of a cross-validation, whose models predict as one.
        weights: Those that the training chose to export, the last, or the best on validation patches.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        precision: Of the network's products; None: that of the plan's training.
        cuda_graph: See `Predictor`.

    Raises:
        InputError: The folder is no model, or its training has not finished.
        UsageError: The device is not there.
    """
    chosen = choose_device(device)
    model = load_model(Path(path), device=chosen, weights=weights)
    name = str(path) if weights == "exported" else f"{path} ({weights} weights)"
    return _predictor_of(model, name, device=chosen, precision=precision, cuda_graph=cuda_graph)


def _predictor_of(
    model: LoadedModel, name: str, *, device: torch.device, precision: Precision | None, cuda_graph: bool
) -> Predictor:
    """Return the predictor of a loaded model, with those of its first stage and of other plans.

    What a first stage predicts is not postprocessed: the second has learnt from what was not.
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
        members=[make(other) for other in model.members],
        precision=precision,
        cuda_graph=cuda_graph,
    )
