"""Tables of label values or colours by name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanseg.documents import read_document, read_json
from scanseg.errors import InputError, UsageError
from scanseg.messages import listed, shortened

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""
LabelKey = int | Colour
"""Value or colour of a label in a source."""
LabelTable = Mapping[str, LabelKey]
"""Value or colour of each label by name."""

_HIGHEST = 2**31 - 1
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_FORM = "Write NAME VALUE, or NAME R G B, on each line"


def read_label_table(labels: str | Path | Mapping[str, object]) -> dict[str, LabelKey]:
    """Read names of labels with their values or colours.

    Args:
        labels: A mapping, a text such as `liver=1,spleen=2` or `road=#ff0000`, or a file. A JSON file holds an object,
            alone or under `labels`. Other files have one label on each line: `name value` or `name r g b`, also with
            the name last, separated by spaces, tabs, commas or semicolons. Their first line may be a heading.

    Returns:
        Value or colour of each name.

    Raises:
        InputError: The file cannot be read or has another form.
        UsageError: The text or the mapping has another form.
    """
    if isinstance(labels, Mapping):
        return _checked("labels", list(labels.items()), error=UsageError)
    if isinstance(labels, str) and "=" in labels and not Path(labels).is_file():
        return _read_text(labels)
    path = Path(labels)
    if not path.is_file():
        raise UsageError(
            f"labels {labels}: expected a file, or NAME=VALUE separated by commas. Write for example liver=1,spleen=2."
        )
    if path.suffix.lower() == ".json":
        return _checked(str(path), _json_entries(path), error=InputError)
    return _checked(str(path), _line_entries(path), error=InputError)


def _read_text(text: str) -> dict[str, LabelKey]:
    """Read `NAME=VALUE` separated by commas."""
    entries: list[tuple[object, object]] = []
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"labels {shortened(text)}: expected NAME=VALUE, got {shortened(part)}. Separate labels by commas."
            )
        entries.append((name.strip(), value.strip()))
    return _checked("labels", entries, error=UsageError)


def _json_entries(path: Path) -> list[tuple[object, object]]:
    content = read_json(path)
    content = content.get("labels", content) if isinstance(content, dict) else content
    if isinstance(content, dict):
        return list(content.items())
    if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        return [
            (entry.get("name"), entry.get("value", entry.get("color", entry.get("colour"))))
            for entry in content
        ]
    raise InputError(f'{path}: expected an object such as {{"liver": 1}} or {{"liver": [255, 0, 0]}}.')


def _line_entries(path: Path) -> list[tuple[object, object]]:
    entries: list[tuple[object, object]] = []
    lines = [line.strip() for line in read_document(path).splitlines()]
    for number, line in enumerate(line for line in lines if line and not line.startswith(("//", "#"))):
        parts = [part.strip() for part in re.split(r"[,;\t=]", line)] if re.search(r"[,;\t=]", line) else []
        words = parts if len(parts) > 1 else line.split()
        words = [
            word for part in words for word in ([part] if not _are_numbers(part.split()) else part.split())
        ]
        entry = _split_line([word.strip("\"'") for word in words if word])
        if entry is not None:
            entries.append(entry)
        elif number:
            raise InputError(
                f"{path}: expected a name with a value or a colour, got {shortened(line)}. {_FORM}."
            )
    if not entries:
        raise InputError(f"{path}: expected at least one label, got none. {_FORM}.")
    return entries


def _are_numbers(words: Sequence[str]) -> bool:
    return bool(words) and all(map(str.isdecimal, words))


def _split_line(words: Sequence[str]) -> tuple[str, object] | None:
    """Return name and value of a line. `None`: another form."""
    for count in (3, 1):
        if len(words) <= count:
            continue
        for name, numbers in ((words[:-count], words[-count:]), (words[count:], words[:count])):
            is_hex = count == 1 and _HEX.fullmatch(numbers[0]) is not None
            if (_are_numbers(numbers) or is_hex) and not _are_numbers(name[:1] if count == 3 else name):
                return " ".join(name), list(map(int, numbers)) if count == 3 else numbers[0]
    return None


def _checked(
    where: str, entries: Sequence[tuple[object, object]], *, error: type[InputError | UsageError]
) -> dict[str, LabelKey]:
    """Return a table whose names and values are unique.

    Raises:
        InputError: Names, values or colours are invalid or repeated, and `error` is this class.
        UsageError: The same, and `error` is this class.
    """
    table: dict[str, LabelKey] = {}
    faults = []
    for name, value in entries:
        key = _key_of(value)
        text = str(name).strip()
        if not isinstance(name, str) or not text or key is None:
            faults.append(
                f"{shortened(str(name))}: expected a whole number from 0 or a colour, got {shortened(str(value))}"
            )
        elif text in table:
            faults.append(f"{text} occurs twice")
        elif key in table.values():
            other = next(label for label, known in table.items() if known == key)
            faults.append(f"{text} and {other} have one value, {describe_key(key)}")
        else:
            table[text] = key
    if len({isinstance(key, int) for key in table.values()}) > 1:
        faults.append("expected values or colours, got both")
    if faults or not table:
        raise error(
            f"{where}: {listed(faults) or 'expected at least one label, got none'}. Correct the labels."
        )
    return table


def _key_of(value: object) -> LabelKey | None:
    """Return a value or colour. `None`: neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _HEX.fullmatch(value)
        if match is not None:
            return (int(match[1][:2], 16), int(match[1][2:4], 16), int(match[1][4:], 16))
        return int(value) if value.isdecimal() and len(value) < 10 else None
    if isinstance(value, int):
        return value if 0 <= value <= _HIGHEST else None
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(part, int) for part in value):
        red, green, blue = value
        return (red, green, blue) if min(value) >= 0 and max(value) <= 255 else None
    return None


def describe_key(key: LabelKey) -> str:
    """Return a value, or a colour in hexadecimal form.

    Args:
        key: The value or colour.

    Examples:
        >>> describe_key(3), describe_key((255, 0, 16))
        ('3', '#ff0010')
    """
    return str(key) if isinstance(key, int) else "#" + "".join(f"{part:02x}" for part in key)
