"""Tables of text as Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]
"""Rows of a table, the heading first."""


def as_markdown(rows: Rows) -> str:
    """Return a table in Markdown.

    Args:
        rows: Rows of the table, the heading first.

    Examples:
        >>> print(as_markdown([("label", "Dice"), ("liver", "0.9")]))
        | label | Dice |
        |---|---|
        | liver | 0.9 |
    """
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])


def as_csv(rows: Rows) -> str:
    """Return a table as comma-separated values.

    Args:
        rows: Rows of the table, the heading first.
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
