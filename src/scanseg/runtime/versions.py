"""Versions of the software that computes, for records."""

import json
import platform
from importlib import import_module, metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from scanseg.version import __version__


def installed_versions(*libraries: str) -> dict[str, str]:
    """Return the versions of scanseg, python, numpy, the platform and libraries.

    Args:
        libraries: Names of the packages that compute. Defaults to `torch`.
    """
    return {
        "scanseg": __version__,
        "python": platform.python_version(),
        **{name: str(import_module(name).__version__) for name in libraries or ("torch",)},
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def source_commit() -> str | None:
    """Return the git commit of the installed scanseg.

    Returns:
        The commit. `None`: scanseg was not installed from a git repository.
    """
    try:
        content = metadata.distribution("scanseg").read_text("direct_url.json")
        origin = json.loads(content) if content else {}
        if "vcs_info" in origin:
            return str(origin["vcs_info"]["commit_id"])
        return _head_commit(Path(url2pathname(urlsplit(origin.get("url", "")).path)) / ".git")
    except (OSError, ValueError, KeyError, metadata.PackageNotFoundError):
        return None


def _head_commit(repository: Path) -> str | None:
    """Return the commit that is checked out.

    Args:
        repository: Folder `.git` of the checkout.
    """
    if not (repository / "HEAD").is_file():
        return None
    head = (repository / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    if (repository / name).is_file():
        return (repository / name).read_text(encoding="utf-8").strip()
    packed = (repository / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
