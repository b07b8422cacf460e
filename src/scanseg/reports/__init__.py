"""Reports in one HTML file, and pictures of images with label maps."""

from scanseg.reports.showing import Layout, Plane, show

__all__ = ["Layout", "Plane", "show"]
