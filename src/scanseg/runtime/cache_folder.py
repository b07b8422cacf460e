"""Folder of files that can be made again, by user."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for cached files of this package. It may be missing.

    It is `scanseg` in the user's cache folder: `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows
    `%LOCALAPPDATA%`.

    Raises:
        RuntimeError: The user has no home folder.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "scanseg" / "Cache"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if Path(chosen).is_absolute():
        return Path(chosen) / "scanseg"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "scanseg"
