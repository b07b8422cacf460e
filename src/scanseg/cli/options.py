"""Arguments that several commands take."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token

from scanseg.errors import UsageError

Recipe = Literal[
    "xlstm-unet",
    "xlstm-unet-2d",
    "xlstm-unet-low",
    "xlstm-unet-cascade",
    "xlstm-unet-fast",
    "msvm-unet",
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
"""The names of `scanseg.planning.RECIPES`, whose import takes a second (a test compares them)."""

Rule = Literal["skip", "transunet", "umamba", "brats", "brats-segmamba"]
"""The names of `scanseg.evaluation.METRIC_RULES` (a test compares them)."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""The values of a plan's `training.precision`."""

Device = Annotated[str, Parameter(help="`cpu`, `cuda`, `cuda:N`, `mps`, or `auto`: the first that is there.")]

Settings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="Change a setting of the plan, `path.to.key=value` with the value as JSON, such as "
        "`training.optimizer.lr=0.01`; may be given again.",
    ),
]

Workers = Annotated[
    int | None,
    Parameter(
        help="Processes that read cases; 0 reads in the command's own; one for each core if not given."
    ),
]


def _read_file_path(kind: object, tokens: Sequence[Token]) -> Path:
    """Read the path of a file to write; the slash that makes it a folder would be lost in a `Path`."""
    text = tokens[0].value
    if text.endswith(("/", os.sep)):
        raise UsageError(_is_folder(text))
    return Path(text)


def _is_folder(path: Path | str) -> str:
    return f"{path} is a folder; name a file in it, such as {Path(path) / 'NAME.json'}."


OutputFile = Annotated[Path, Parameter(name=("--output", "-o"), converter=_read_file_path)]
"""A file to write."""

Overwrite = Annotated[bool, Parameter(help="Replace the output file where it is there already.")]


def require_new_file(path: Path, *, overwrite: bool) -> None:
    """Make sure, before the work, that a file can be written without replacing what is there unasked.

    Args:
        path: The file.
        overwrite: Whether it may be replaced.

    Raises:
        UsageError: It may not, it is a folder or a device, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(_is_folder(path))
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is a device or a pipe, which a file cannot replace; name a file.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already. Name another file, or replace it by --overwrite.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{path}: {above} is a file, not a folder; name a file elsewhere.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: nothing may be written to {above}; name a file elsewhere.")


def split_names(text: str) -> tuple[str, ...]:
    """Split what is separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_numbers(text: str, option: str) -> tuple[int, ...]:
    """Read numbers separated by commas.

    Raises:
        UsageError: Something is no number.
    """
    names = split_names(text)
    strange = [name for name in names if not name.isdecimal()]
    if strange:
        raise UsageError(
            f"{option} {text}: {', '.join(strange)} must be whole numbers from 0, separated by commas"
        )
    return tuple(int(name) for name in names)
