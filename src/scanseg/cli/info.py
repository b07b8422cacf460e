"""`scanseg info`."""

import json
import os
import platform
import re
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

from cyclopts import App, Parameter

from scanseg.cli.command_list import describe_commands
from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import COMMON
from scanseg.messages import counted

_LIBRARIES = ("triton", "numba", "scipy", "SimpleITK", "nibabel", "blosc2", "nilearn")
FAST_CUDNN = 91500
"""First version of cuDNN with fast 3D convolutions in 16 bits (pytorch/pytorch#166122)."""
_EXTRA_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*extra == ['\"](?P<extra>[\w.-]+)['\"]")


def info_command(app: App) -> Callable[..., int | None]:
    """Return the command for an application, whose commands it lists.

    Args:
        app: The application.
    """

    def info(
        *,
        verify: Annotated[bool, COMMON] = False,
        as_json: Annotated[bool, COMMON, Parameter(name="--json")] = False,
    ) -> int | None:
        """Show versions, devices, backends, networks, recipes and extras.

        Args:
            verify: Compare the kernels with float64 on every GPU with CUDA, forward and gradients, and keep the
                results. Wrong kernels are not used. Exit code 1: a kernel is wrong.
            as_json: Print one JSON document instead of tables. It lists the commands too.
        """
        kernels = check_kernels() if verify else []
        facts = collect()
        if as_json:
            commands = {"commands": describe_commands(app)}
            print_line(json.dumps(facts | commands | ({"kernels": kernels} if verify else {}), indent=2))
        else:
            _show(facts, kernels, verify=verify)
        return None if all(row["passed"] for row in kernels) else 1

    return info


def _show(facts: dict[str, Any], kernels: list[dict[str, Any]], *, verify: bool) -> None:
    """Print the facts as tables."""
    show_table(("package", "version"), facts["versions"].items(), align="left")
    show_table(("device", "description"), facts["devices"].items(), align="left")
    backends = [(row["operator"], row["backend"], row["reason"] or "available") for row in facts["backends"]]
    show_table(("operator", "backend", "status"), backends, align="left")
    networks = [(name, row["title"], row["summary"]) for name, row in facts["networks"].items()]
    show_table(("network", "title", "description"), networks, align="left")
    show_table(("recipe", "description"), facts["recipes"].items(), align="left")
    extras = [(name, _describe_extra(row)) for name, row in facts["extras"].items()]
    show_table(("extra", "status"), extras, align="left")
    if facts["kernel_checks"] and not verify:
        rows = [
            (row["device"], row["operator"], row["dtype"], _describe_verdict(row))
            for row in facts["kernel_checks"]
        ]
        show_table(("device", "operator", "dtype", "last check"), rows, align="left")
    if verify:
        rows = [(row["device"], row["operator"], row["dtype"], _describe_check(row)) for row in kernels]
        show_table(("device", "operator", "dtype", "kernels"), rows, align="left")


def check_kernels() -> list[dict[str, Any]]:
    """Compare the kernels with float64 on every GPU with CUDA.

    Returns:
        A list of device, operator, dtype, error, bound, failure, fault and passed.
    """
    import torch

    from scanseg.ops import verify_kernels

    return [
        {"device": f"cuda:{number}", **check._asdict(), "fault": check.fault, "passed": check.passed}
        for number in range(torch.cuda.device_count())
        for check in verify_kernels(torch.device("cuda", number))
    ]


def _describe_check(row: dict[str, Any]) -> str:
    if row["passed"]:
        return f"correct (error {row['error']:.1g})"
    return (
        f"not used: {row['fault']}. Install another version of PyTorch, whose Triton compiles them correctly."
    )


def _describe_verdict(row: dict[str, Any]) -> str:
    state = "correct" if row["passed"] else f"not used: {row['fault']}. Check again by --verify"
    return f"{row['date']}: {state}"


def collect() -> dict[str, Any]:
    """Collect the facts of `scanseg info` as JSON values.

    Returns:
        A dictionary with these keys:

        - `formats`: endings of images that are read, and of label maps that are written.
        - `models`: models that predict by name.
        - `versions`, `devices`: name to text.
        - `backends`: list of operator, backend, and reason if the backend is off, otherwise `None`.
        - `networks`: name to title, summary and source.
        - `recipes`: name to description.
        - `extras`: name to the missing packages and the line that installs them.
        - `kernel_checks`: list of device, operator, dtype, passed, fault and date of the last check on this machine.
    """
    from scanseg.networks import NETWORKS
    from scanseg.ops import describe_backends, kernel_verdicts
    from scanseg.planning import RECIPES

    return {
        "formats": _formats(),
        "models": _models(),
        "versions": _versions(),
        "devices": _devices(),
        "backends": [status._asdict() for status in describe_backends()],
        "networks": {
            name: {"title": entry.title, "summary": entry.summary, "source": entry.source}
            for name, entry in NETWORKS.items()
        },
        "recipes": {name: recipe.description for name, recipe in RECIPES.items()},
        "extras": _extras(),
        "kernel_checks": [verdict._asdict() for verdict in kernel_verdicts()],
    }


def _formats() -> dict[str, list[str]]:
    """Return the endings of files that are read and written."""
    from scanseg.imaging import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS

    not_written = (*DETACHED_ENDINGS, *LOSSY_ENDINGS)
    return {"read": list(DECODERS), "written": [each for each in DECODERS if each not in not_written]}


def _models() -> dict[str, dict[str, Any]]:
    """Return place, size and description of the models by name."""
    from scanseg.pretrained import list_models

    return {
        model.name: {"place": model.place, "bytes": model.num_bytes, "summary": model.summary}
        for model in list_models()
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
            f"CUDA {torch.version.cuda}{_describe_cudnn(torch.backends.cudnn.version(), cuda=torch.version.cuda)}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _describe_cudnn(version: int | None, *, cuda: str | None) -> str:
    """Describe a version of cuDNN, such as 91500.

    Args:
        version: The number that PyTorch reports. `None`: cuDNN is missing.
        cuda: Version of CUDA.
    """
    if version is None:
        return ""
    name = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    if version >= FAST_CUDNN:
        return f", cuDNN {name}"
    return (
        f", cuDNN {name} (3D convolutions in 16 bits may be up to four times slower than with 9.15. "
        f'Upgrade it: pip install "nvidia-cudnn-cu{(cuda or "").partition(".")[0]}>=9.15")'
    )


def _extras() -> dict[str, dict[str, Any]]:
    """List the missing packages and the installing line of each extra.

    A source folder on the import path, without an installation, does not list its extras.
    """
    packages: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("scanseg") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
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
