"""Output of the commands on stdout: lines and tables."""

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_OF_FILES = 200
"""Columns of a table if stdout is not a terminal. Tables are not wrapped then."""


def is_first_process() -> bool:
    """Return whether this process reports its work.

    Only the first process of `torchrun` does.
    """
    return os.environ.get("RANK", "0") == "0"


def suggest_command(purpose: str, *words: str | Path) -> None:
    """Print a command to run next, quoted for a shell.

    Args:
        purpose: Purpose of the command, such as `to predict`.
        words: Words after `scanseg`. Paths may contain spaces.
    """
    print_line(f"{purpose}:  {shlex.join(['scanseg', *map(str, words)])}")


def print_colours(output: Path) -> None:
    """Print the folder of pictures in colours, if it exists.

    Args:
        output: Folder of label maps or instance maps.
    """
    colours = output / "colours"
    if colours.is_dir():
        print_line(f"in colours, to look at: {colours}")


def print_error_lines(lines: Iterable[str]) -> None:
    """Print lines on stderr.

    Args:
        lines: The lines.
    """
    for line in lines:
        sys.stderr.write(line + "\n")
    sys.stderr.flush()


def print_line(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, align: Literal["left", "right"] = "right"
) -> None:
    """Print a table.

    Args:
        columns: Headings of the columns.
        rows: Text of each row, one entry per column.
        align: Alignment of all columns except the first, which is aligned left.
    """
    table = Table(box=box.SIMPLE)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify=align if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES).print(table)


def format_score(score: float | None) -> str:
    """Format a score with four digits, and `None` as a dash."""
    return "-" if score is None else f"{score:.4f}"


def format_memory(num_bytes: float) -> str:
    """Format a number of bytes in MiB or GiB."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if round(mebibytes) < 1024 else f"{mebibytes / 1024:.1f} GiB"
