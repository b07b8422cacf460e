"""The model folder: written by training, all that prediction needs."""

from scanseg.models.folder import Checkpoint, ModelFolder

__all__ = ["Checkpoint", "ModelFolder"]
