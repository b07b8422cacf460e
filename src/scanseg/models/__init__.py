"""The model folder: written by training, all that prediction needs."""

from scanseg.models.ensemble import (
    FILE,
    FIRST_STAGE,
    LoadedModel,
    LogitEnsemble,
    load_model,
    member_folders,
    pair_prediction_path,
    require_single,
    write_ensemble,
)
from scanseg.models.folder import Checkpoint, ModelFolder, Weights, check_network, network_of, read_tensors
from scanseg.models.published_checkpoints import import_weights, load_encoder

__all__ = [
    "FILE",
    "FIRST_STAGE",
    "Checkpoint",
    "LoadedModel",
    "LogitEnsemble",
    "ModelFolder",
    "Weights",
    "check_network",
    "import_weights",
    "load_encoder",
    "load_model",
    "member_folders",
    "network_of",
    "pair_prediction_path",
    "read_tensors",
    "require_single",
    "write_ensemble",
]
