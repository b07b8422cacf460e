"""Groups of options, and arguments of several commands."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from scanseg.errors import UsageError

COMMON = Parameter(group=Group("Common options", sort_key=1))
"""Options of everyday use: output, recipe, fold, resuming."""

TRAINING = Parameter(group=Group("Training options", sort_key=2))
"""Options that change how networks are trained."""

HARDWARE = Parameter(group=Group("Hardware options", sort_key=3))
"""Options of devices, precision and worker processes."""

ADVANCED = Parameter(group=Group("Advanced options", sort_key=4))
"""Options of rare use."""

Recipe = Literal[
    "xlstm-unet",
    "xlstm-unet-2d",
    "xlstm-unet-low",
    "xlstm-unet-cascade",
    "xlstm-unet-fast",
    "msvm-unet",
    "msvm-unet-tuned",
    "residual-unet",
    "residual-unet-low",
    "residual-unet-cascade",
    "plain-unet",
    "plain-unet-2d",
    "plain-unet-low",
    "plain-unet-cascade",
    "plain-unet-fast",
    "dynunet",
    "segresnet",
    "unetr",
    "swin-unetr",
]
"""Names of `scanseg.planning.RECIPES`, whose import takes a second. A test compares both."""

PlanSize = Annotated[
    Literal["small", "medium", "full"] | None,
    COMMON,
    Parameter(
        name="--size",
        help="Size of network, patches and batch: `small` for a CPU, `medium` for a small GPU, or `full` as planned by "
        "the recipe. Defaults to `small` for the fast recipes on a CPU, otherwise to `full`.",
    ),
]
"""Values of `scanseg.planning.PlanSize`. A test compares both."""

Rule = Literal["skip", "transunet", "umamba", "brats", "brats-segmamba"]
"""Names of `scanseg.evaluation.METRIC_RULES`. A test compares both."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Values of a plan's `training.precision`."""

OutputFormat = Literal["nii.gz", "nii", "nrrd", "mha", "png", "tif", "dicom-seg"]
"""Values of `scanseg.inference.OutputFormat`. A test compares both."""

Dataset = Annotated[
    Path, Parameter(help="Data set folder in nnU-Net's raw layout (`dataset.json`, `imagesTr`, `labelsTr`).")
]
"""Folder of a raw data set."""

DatasetOrPlan = Annotated[
    Path,
    Parameter(
        name="DATASET_OR_PLAN",
        help="Data set folder in nnU-Net's raw layout, or a plan file from `scanseg plan`.",
    ),
]
"""Folder of a raw data set, or file of a plan."""

Device = Annotated[
    str,
    HARDWARE,
    Parameter(
        help="Device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`, the first available of `cuda`, `mps`, `cpu`."
    ),
]
"""Name of one device."""

Engine = Annotated[
    Literal["ray", "slurm"] | None,
    HARDWARE,
    Parameter(
        name="--on",
        help="Cluster that does the work: `ray` or `slurm`. All machines see the files under the same paths. Defaults "
        "to this machine.",
    ),
]
"""Values of `scanseg.cohort.EngineName`. A test compares both."""

RayAddress = Annotated[
    str | None,
    HARDWARE,
    Parameter(
        help="Address of the Ray cluster of `--on ray`. Defaults to `RAY_ADDRESS`, to the cluster of this machine, or "
        "to a new one on it."
    ),
]
"""Address of a Ray cluster."""

SlurmOptions = Annotated[
    str,
    HARDWARE,
    Parameter(
        help="Options of `--on slurm`, as `key=value,key=value`: `jobs` (at a time, 8), `gpus` (0 or 1, by default 0 "
        "for `preprocess` and 1 for others), `cpus` (threads of this machine), `time` (minutes, 240), and long options "
        "of `sbatch`, such as `partition=gpu,mem=32G`. Defaults to none."
    ),
]
"""Resources of SLURM jobs."""

Settings = Annotated[
    tuple[str, ...],
    ADVANCED,
    Parameter(
        name="--set",
        help="Change a setting of the plan, as `path.to.key=value` with a JSON value. Example: "
        "`training.optimizer.lr=0.01`. Repeat for more settings. Defaults to no changes.",
    ),
]
"""Changes to the plan."""

Store = Annotated[
    Path | None,
    ADVANCED,
    Parameter(
        help="Folder of the preprocessed cases. Trainings with the same data set and preprocessing share them. "
        "Defaults to `scanseg-stores` beside the output folder."
    ),
]
"""Folder of the stores of preprocessed cases."""

Workers = Annotated[
    int | None,
    HARDWARE,
    Parameter(
        help="Processes that read cases. 0 reads them in the main process. "
        "Defaults to one per core, at most 16, or to 0 for small data sets."
    ),
]
"""Number of worker processes of commands that read training cases."""

StopAfterMinutes = Annotated[
    float | None,
    ADVANCED,
    Parameter(
        help="Stop the command after this many minutes. Continue with `--resume`. Defaults to no limit."
    ),
]
"""Time limit of a command."""

OutputFolder = Annotated[Path, COMMON, Parameter(name=("--output", "-o"))]
"""A folder to write."""


def _read_file_path(kind: object, tokens: Sequence[Token]) -> Path:
    """Read the path of an output file without a trailing slash.

    The slash makes the path a folder, and a `Path` would lose it.
    """
    text = tokens[0].value
    if text.endswith(("/", os.sep)):
        raise UsageError(_is_folder(text))
    return Path(text)


def _is_folder(path: Path | str) -> str:
    return f"{path}: expected a file, got a folder. Name a file in it, such as {Path(path) / 'NAME.json'}."


OutputFile = Annotated[Path, COMMON, Parameter(name=("--output", "-o"), converter=_read_file_path)]
"""A file to write."""

Overwrite = Annotated[bool, COMMON, Parameter(help="Replace the output file if it exists.")]
"""Permission to replace the output file."""


def require_new_file(path: Path, *, overwrite: bool) -> None:
    """Check that an output file can be written, before the work starts.

    Args:
        path: The file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: The file exists and must not be replaced, it is a folder, a device or a pipe, or its folder cannot
            be created or written to.
    """
    if path.is_dir():
        raise UsageError(_is_folder(path))
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: expected a file, got a device or a pipe. Choose another path.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists. Choose another path or pass --overwrite.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{path}: expected a folder at {above}, got a file. Choose another path.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: no permission to write to {above}. Choose another path.")


def split_names(text: str) -> tuple[str, ...]:
    """Split names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_numbers(text: str, option: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas.

    Args:
        text: The numbers.
        option: Name of the option, for the message.

    Raises:
        UsageError: An entry is not a whole number from 0.
    """
    names = split_names(text)
    invalid = [name for name in names if not name.isdecimal()]
    if invalid:
        raise UsageError(
            f"{option} {text}: expected whole numbers from 0, separated by commas, got {', '.join(invalid)}"
        )
    return tuple(int(name) for name in names)


def read_pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Read two numbers separated by a comma.

    Args:
        text: The numbers. `None`: none are given.
        option: Name of the option, for the message.

    Raises:
        UsageError: The text has another form.
    """
    if text is None:
        return None
    try:
        low, high = map(float, split_names(text))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected LOW,HIGH. Write two numbers with a comma.") from error
    return low, high


def read_slices(text: str | None, option: str) -> tuple[int, int, int] | None:
    """Read the numbers of three slices.

    Args:
        text: The numbers, separated by commas. `None`: none are given.
        option: Name of the option, for the message.

    Raises:
        UsageError: The text has another form.
    """
    numbers = () if text is None else read_numbers(text, option)
    if text is None:
        return None
    if len(numbers) != 3:
        raise UsageError(f"{option} {text}: expected Z,Y,X. Write three whole numbers with commas.")
    return numbers[0], numbers[1], numbers[2]
