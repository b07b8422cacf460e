"""`scanseg info`."""

import json
import os
import platform
import re
from importlib import metadata
from typing import Annotated, Any

from cyclopts import Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import COMMON
from scanseg.messages import counted

_LIBRARIES = ("triton", "numba", "scipy", "SimpleITK", "nibabel", "blosc2", "nilearn")
_EXTRA_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*extra == ['\"](?P<extra>[\w.-]+)['\"]")


def info(*, as_json: Annotated[bool, COMMON, Parameter(name="--json")] = False) -> None:
    """Show versions, devices, backends, networks, recipes and extras.

    Args:
        as_json: Print one JSON document instead of tables.
    """
    facts = collect()
    if as_json:
        print_line(json.dumps(facts, indent=2))
        return
    show_table(("package", "version"), facts["versions"].items(), align="left")
    show_table(("device", "description"), facts["devices"].items(), align="left")
    backends = [(row["operator"], row["backend"], row["reason"] or "available") for row in facts["backends"]]
    show_table(("operator", "backend", "status"), backends, align="left")
    networks = [(name, row["title"], row["summary"]) for name, row in facts["networks"].items()]
    show_table(("network", "title", "description"), networks, align="left")
    show_table(("recipe", "description"), facts["recipes"].items(), align="left")
    extras = [(name, _describe_extra(row)) for name, row in facts["extras"].items()]
    show_table(("extra", "status"), extras, align="left")


def collect() -> dict[str, Any]:
    """Collect the facts of `scanseg info` as JSON values.

    Returns:
        A dictionary with these keys:

        - `versions`, `devices`: name to text.
        - `backends`: list of operator, backend, and reason if the backend is off, otherwise `None`.
        - `networks`: name to title, summary and source.
        - `recipes`: name to description.
        - `extras`: name to the missing packages and the line that installs them.
    """
    from scanseg.networks import NETWORKS
    from scanseg.ops import describe_backends
    from scanseg.planning import RECIPES

    return {
        "versions": _versions(),
        "devices": _devices(),
        "backends": [status._asdict() for status in describe_backends()],
        "networks": {
            name: {"title": entry.title, "summary": entry.summary, "source": entry.source}
            for name, entry in NETWORKS.items()
        },
        "recipes": {name: recipe.description for name, recipe in RECIPES.items()},
        "extras": _extras(),
    }


def _versions() -> dict[str, str]:
    from scanseg.runtime import installed_versions

    return installed_versions() | {name: _installed_version(name) or "not installed" for name in _LIBRARIES}


def _installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, str]:
    """Describe each device under the name that `--device` takes."""
    import torch

    cores, threads = counted(os.cpu_count() or 1, "core"), counted(torch.get_num_threads(), "thread")
    found = {"cpu": f"{platform.machine()}, {cores}, {threads} used"}
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = (
            f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}, "
            f"CUDA {torch.version.cuda}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _extras() -> dict[str, dict[str, Any]]:
    """List the missing packages and the installing line of each extra."""
    packages: dict[str, list[str]] = {}
    for requirement in metadata.requires("scanseg") or []:
        if match := _EXTRA_REQUIREMENT.match(requirement):
            packages.setdefault(match["extra"], []).append(match["name"])
    return {
        extra: {
            "missing": [name for name in names if _installed_version(name) is None],
            "install": f'pip install "scanseg[{extra}]"',
        }
        for extra, names in packages.items()
    }


def _describe_extra(row: dict[str, Any]) -> str:
    if not row["missing"]:
        return "installed"
    return f"missing {', '.join(row['missing'])}: {row['install']}"
