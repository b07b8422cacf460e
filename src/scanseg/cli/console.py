"""What a person reads on stdout: lines and tables."""

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
"""Columns where stdout is no terminal: tables are not wrapped there."""


def suggest(purpose: str, *words: str | Path) -> None:
    """Write a command that goes on from here, as it can be given to a shell.

    Args:
        purpose: What it is for.
        words: The command without the program; paths may have spaces.
    """
    say(f"{purpose}:  {shlex.join(['scanseg', *map(str, words)])}")


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(line + "\n")


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, align: Literal["left", "right"] = "right"
) -> None:
    """Write a table.

    Args:
        columns: Heads of the columns.
        rows: Cells of each row, as many as there are columns.
        align: Side to which all columns but the first are set.
    """
    table = Table(box=box.SIMPLE)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify=align if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES).print(table)


def format_score(score: float | None) -> str:
    """Say a score with four digits, or a dash where there is none."""
    return "-" if score is None else f"{score:.4f}"


def format_duration(seconds: float) -> str:
    """Say a duration as `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
