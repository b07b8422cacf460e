"""Counts, durations and long lists in messages."""

from collections.abc import Sequence

MOST_NAMED = 10
"""Maximum number of names in a sentence. The number of further names follows."""

MOST_LINES = 20
"""Maximum number of lines. The number of further lines follows."""


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Args:
        number: The number.
        thing: Noun in the singular.
        plural: Noun in the plural. `None`: the singular with an s.

    Examples:
        >>> counted(1, "case"), counted(2, "case"), counted(3, "axis", "axes")
        ('1 case', '2 cases', '3 axes')
    """
    return f"{number} {thing if number == 1 else plural or thing + 's'}"


def listed(names: Sequence[str]) -> str:
    """Join names by commas, at most the first ten.

    Args:
        names: The names.

    Examples:
        >>> listed("abc")
        'a, b, c'
        >>> listed("abcdefghijklm")
        'a, b, c, d, e, f, g, h, i, j and 3 more'
    """
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def first_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines, at most the first twenty.

    Args:
        lines: The lines.

    Returns:
        The lines. A last line with the number of further lines replaces these.
    """
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [*lines[:MOST_LINES], *more]


def shortened(text: str, most: int = 60) -> str:
    """Return a text on one line, cut to a length.

    Args:
        text: The text.
        most: Largest length in characters. Three dots replace the rest.

    Examples:
        >>> shortened("abcdefghijklm", 8), shortened("abc")
        ('abcde...', 'abc')
    """
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(character if character.isprintable() else " " for character in cut)


def format_duration(seconds: float) -> str:
    """Format a duration as `h:mm:ss`.

    Args:
        seconds: Duration in seconds.

    Examples:
        >>> format_duration(3725.4)
        '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
