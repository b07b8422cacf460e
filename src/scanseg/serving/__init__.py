"""A server that segments images, and a viewer in a browser."""

from scanseg.serving.limits import Limits
from scanseg.serving.models import load_models
from scanseg.serving.server import Server

__all__ = ["Limits", "Server", "load_models"]
