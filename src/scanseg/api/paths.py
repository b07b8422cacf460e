"""Paths as the functions take them."""

import os

AnyPath = str | os.PathLike[str]
"""A path of a file or folder."""
