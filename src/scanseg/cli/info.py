"""`scanseg info`."""

import json
import os
import platform
import re
from importlib import metadata
from typing import Annotated, Any

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.messages import counted

_LIBRARIES = ("triton", "numba", "scipy", "SimpleITK", "blosc2", "nilearn")
_EXTRA_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*extra == ['\"](?P<extra>[\w.-]+)['\"]")


def info(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Say what is installed and can be used: versions, devices, backends, networks, recipes, extras.

    Args:
        as_json: Write it as JSON.
    """
    facts = collect()
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    show_table(("version", ""), facts["versions"].items(), align="left")
    show_table(("device", ""), facts["devices"].items(), align="left")
    backends = [(row["operator"], row["backend"], row["reason"] or "on") for row in facts["backends"]]
    show_table(("operator", "backend", "state"), backends, align="left")
    networks = [(name, row["title"], row["summary"]) for name, row in facts["networks"].items()]
    show_table(("network", "", ""), networks, align="left")
    show_table(("recipe", ""), facts["recipes"].items(), align="left")
    extras = [(name, _describe_extra(row)) for name, row in facts["extras"].items()]
    show_table(("extra", ""), extras, align="left")


def collect() -> dict[str, Any]:
    """Gather all that `scanseg info` says, as values that JSON can hold.

    Returns:
        `versions` and `devices` (name to text); `backends` (a list: operator, backend, reason why it is off or
        None); `networks` (name to title, summary, source); `recipes` (name to description); `extras` (name to
        the packages missing and the line that installs them).
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
    """Describe each device, under the name by which it is asked for."""
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
    """List what each extra of the package needs and lacks, and the line that installs it."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("scanseg") or []:
        if match := _EXTRA_REQUIREMENT.match(requirement):
            needs.setdefault(match["extra"], []).append(match["name"])
    return {
        extra: {
            "missing": [name for name in names if _installed_version(name) is None],
            "install": f'pip install "scanseg[{extra}]"',
        }
        for extra, names in needs.items()
    }


def _describe_extra(row: dict[str, Any]) -> str:
    if not row["missing"]:
        return "installed"
    return f"lacks {', '.join(row['missing'])}: {row['install']}"
