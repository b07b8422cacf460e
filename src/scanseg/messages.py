"""Counts, durations and long lists in messages."""

import re
from collections.abc import Sequence

MOST_NAMED = 10
"""Maximum number of names in a sentence. The number of further names follows."""

_FEWEST_MERGED = 3
"""Smallest number of cases in a merged line."""

_CASE_LINE = re.compile(r"case (?P<name>.+?): (?P<text>.*)", re.DOTALL)

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


def merge_cases(lines: Sequence[str]) -> list[str]:
    """Merge lines `case NAME: TEXT` with equal texts.

    The name of a case in the paths of the text does not count. It becomes CASE in the merged line.

    Args:
        lines: The lines. Lines of another form are kept.

    Examples:
        >>> merge_cases(["case a: a.png is empty", "case b: b.png is empty", "no folds", "case c: c.png is empty"])
        ['3 cases (a, b, c): CASE.png is empty', 'no folds']
    """
    names: dict[str, list[str]] = {}
    texts = []
    for line in lines:
        match = _CASE_LINE.fullmatch(line)
        text = line if match is None else _without_name(match["text"], match["name"])
        texts.append(text)
        if match is not None:
            names.setdefault(text, []).append(match["name"])
    merged = {text: of_text for text, of_text in names.items() if len(of_text) >= _FEWEST_MERGED}
    result = dict.fromkeys(
        f"{len(merged[text])} cases ({listed(merged[text])}): {text}" if text in merged else line
        for line, text in zip(lines, texts, strict=True)
    )
    return list(result)


def _without_name(text: str, name: str) -> str:
    """Replace the name of a case in file names and folders of a text."""
    escaped = re.escape(name)
    in_file = rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])(?=[\w-]*\.[A-Za-z])"
    folder = rf"(?<=[/\\]){escaped}(?=[/\\])"
    return re.sub(f"{in_file}|{folder}", "CASE", text)


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
