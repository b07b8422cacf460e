"""A server that segments images, and a viewer in a browser."""

from scanseg.serving.limits import make_limits
from scanseg.serving.models import load_models
from scanseg.serving.server import Server, serve_page
from scanseg.serving.viewer import Viewer

__all__ = ["Server", "Viewer", "load_models", "make_limits", "serve_page"]
