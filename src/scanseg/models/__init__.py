"""Model folders, ensembles and checkpoints."""

from scanseg.models.calibration import (
    calibration_path,
    copy_calibration,
    stamp_weights,
)
from scanseg.models.checkpoint import Checkpoint
from scanseg.models.ensemble import (
    LoadedModel,
    LogitEnsemble,
    is_ensemble,
    load_model,
    member_folders,
    pair_prediction_path,
    read_ensemble,
    require_single,
    write_ensemble,
)
from scanseg.models.folder import (
    PLAN_FILE,
    SETUP_FILE,
    ModelFolder,
    TrainedWeights,
    Weights,
)
from scanseg.models.network import check_network, count_parameters, load_weights, network_of
from scanseg.models.published_checkpoints import import_weights, load_checkpoint, load_encoder
from scanseg.models.score_files import VALIDATION_FILE
from scanseg.models.tensors import list_misfits, read_tensors

__all__ = [
    "PLAN_FILE",
    "SETUP_FILE",
    "VALIDATION_FILE",
    "Checkpoint",
    "LoadedModel",
    "LogitEnsemble",
    "ModelFolder",
    "TrainedWeights",
    "Weights",
    "calibration_path",
    "check_network",
    "copy_calibration",
    "count_parameters",
    "import_weights",
    "is_ensemble",
    "list_misfits",
    "load_checkpoint",
    "load_encoder",
    "load_model",
    "load_weights",
    "member_folders",
    "network_of",
    "pair_prediction_path",
    "read_ensemble",
    "read_tensors",
    "require_single",
    "stamp_weights",
    "write_ensemble",
]
