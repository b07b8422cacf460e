"""The model folder: written by training, all that prediction needs."""

from scanseg.models.ensemble import LoadedModel, load_model, member_folders, require_single, write_ensemble
from scanseg.models.folder import Checkpoint, ModelFolder, check_network, network_of
from scanseg.models.official import import_encoder, import_model, import_weights, load_encoder, read_official

__all__ = [
    "Checkpoint",
    "LoadedModel",
    "ModelFolder",
    "check_network",
    "import_encoder",
    "import_model",
    "import_weights",
    "load_encoder",
    "load_model",
    "member_folders",
    "network_of",
    "read_official",
    "require_single",
    "write_ensemble",
]
