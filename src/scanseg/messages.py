"""Counts of things, in words, and lists that may be long."""

from collections.abc import Sequence

MOST_NAMED = 10
"""Things that are named in a sentence; of more it says how many."""

MOST_LINES = 20
"""Things that are told of in a line each; of more it is said how many."""


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """Say how many things there are: `1 case`, `2 cases`.

    Args:
        number: How many.
        thing: What one of them is called.
        plural: What several are called; None: the same with an s.
    """
    return f"{number} {thing if number == 1 else plural or thing + 's'}"


def listed(names: Sequence[str]) -> str:
    """Name things in a sentence, the first ten of many: `a, b, c`, or `a, b, ... and 7 more`."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def first_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines, or the first twenty of many with a last one that says how many more there are."""
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [*lines[:MOST_LINES], *more]
