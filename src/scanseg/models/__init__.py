"""The model folder: written by training, all that prediction needs."""

from scanseg.models.folder import Checkpoint, ModelFolder, check_network

__all__ = ["Checkpoint", "ModelFolder", "check_network"]
