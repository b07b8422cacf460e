"""Read JSON documents, with limits.

The rules hold for every JSON file that scanseg reads, and for the values of settings:

- UTF-8, with or without a byte order mark.
- At most 256 MiB, 64 levels of lists and objects, and 100 digits in an integer.
- Keys of an object are unique. A repeated key is refused, since one of its values would be lost.
- Numbers are finite. `NaN` and `Infinity` are no JSON.
- Texts hold neither NUL nor lone surrogates.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from scanseg.errors import InputError, reason_of
from scanseg.messages import shortened

MOST_BYTES = 256 * 2**20
"""Largest size of a file."""
MOST_LEVELS = 64
"""Largest depth of lists and objects."""
MOST_DIGITS = 100
"""Largest number of digits of an integer."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of a text in UTF-16."""
_SURROGATES = range(0xD800, 0xE000)
_TOO_DEEP = f"expected at most {MOST_LEVELS} levels of lists and objects, got more"


class NotJSONError(ValueError):
    """A text is no JSON."""


class JSONLimitError(ValueError):
    """A text is JSON, but exceeds a limit."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.

    Returns:
        The content: a dict, list, text, number, bool or `None`.

    Raises:
        InputError: The file cannot be read, is no JSON, or exceeds a limit.
    """
    return parse_document(read_document(path), path)


def read_document(path: Path) -> str:
    """Read a text file in UTF-8.

    Args:
        path: The file.

    Returns:
        The text without byte order mark.

    Raises:
        InputError: The file cannot be read, is too large, or has another encoding.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{path}: expected at most {MOST_BYTES // 2**20} MiB, got more. Choose another file."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start, byte = error.start, content[error.start]
        found = "UTF-16" if content[:2] in _UTF16 else f"byte {byte:#x} at {start}"
        raise InputError(f"{path}: expected UTF-8 text, got {found}. Save the file as UTF-8.") from error


def parse_document(text: str, path: Path) -> Any:
    """Parse the text of a JSON file.

    Args:
        text: The text.
        path: Its file, for messages.

    Raises:
        InputError: The text is no JSON, or exceeds a limit.
    """
    try:
        return parse_json(text)
    except NotJSONError as error:
        raise InputError(f"{path}: expected JSON ({error}). Restore the file, or write it again.") from error
    except JSONLimitError as error:
        raise InputError(f"{path}: {error}.") from error


def parse_json(text: str) -> Any:
    """Parse JSON.

    Args:
        text: The text.

    Raises:
        NotJSONError: The text is no JSON.
        JSONLimitError: The text exceeds a limit.
    """
    if not text.strip():
        raise NotJSONError("the text is empty")
    try:
        content = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=_parse_integer
        )
    except json.JSONDecodeError as error:
        raise NotJSONError(f"{error.msg}: line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise JSONLimitError(_TOO_DEEP) from error
    for value in _texts_and_numbers(content):
        _check_value(value)
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object.

    Raises:
        JSONLimitError: A key is repeated.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, number in counts.items() if number > 1)
        raise JSONLimitError(f"expected each key once, got {shortened(json.dumps(repeated))} more than once")
    return content


def _refuse_constant(name: str) -> NoReturn:
    """Refuse `NaN`, `Infinity` and `-Infinity`."""
    raise NotJSONError(f"expected a finite number, got {name}")


def _parse_integer(digits: str) -> int:
    """Return an integer.

    Raises:
        JSONLimitError: It has too many digits.
    """
    if len(digits) > MOST_DIGITS:
        raise JSONLimitError(f"expected integers of at most {MOST_DIGITS} digits, got {len(digits)}")
    return int(digits)


def _texts_and_numbers(content: Any) -> Iterator[str | float]:
    """Yield every key, text and decimal number.

    Raises:
        JSONLimitError: The content has too many levels.
    """
    waiting = [(content, 0)]
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, str | float):
            yield value
        elif isinstance(value, dict | list):
            if level == MOST_LEVELS:
                raise JSONLimitError(_TOO_DEEP)
            if isinstance(value, dict):
                yield from value
                value = value.values()
            waiting += [(part, level + 1) for part in value]


def _check_value(value: str | float) -> None:
    """Check a text or a number.

    Raises:
        JSONLimitError: The text holds NUL or a lone surrogate, or the number is not finite.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise JSONLimitError("expected finite numbers, got a number beyond the range of 64-bit floats")
    elif "\0" in value:
        raise JSONLimitError(f"expected texts without NUL, got {shortened(json.dumps(value))}")
    elif not value.isascii() and any(ord(character) in _SURROGATES for character in value):
        raise JSONLimitError(f"expected texts of whole characters, got {shortened(json.dumps(value))}")
