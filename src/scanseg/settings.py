"""Settings: changes of a document by text, as in `--set path.to.key=value`."""

import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from scanseg.errors import UsageError
from scanseg.specs import RENAMED_FIELDS, Document, describe_faults, list_faults

AnyDocument = TypeVar("AnyDocument", bound=Document)


def apply_settings(document: AnyDocument, settings: Sequence[str]) -> AnyDocument:
    """Return a document with changed settings.

    The whole document is checked once, after the last setting.

    Args:
        document: The document. It is not changed.
        settings: Texts `path.to.key=value`, applied in order. A part of the path is a key, or the number of an entry
            from 0. The value is read as JSON, or as plain text if it is not JSON.

    Raises:
        UsageError: A text has another form, a path does not exist, or the changed document is invalid.
    """
    if not settings:
        return document
    settings = as_tuple(settings)
    content = document.model_dump(mode="json")
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {setting}: expected path.to.key=value.")
        _put(content, path, _parse(value))
    try:
        return type(document).model_validate_json(json.dumps(content))
    except ValidationError as error:
        faults = list_faults(error, content=content)
        wrong = " ".join(f"--set {setting}" for setting in _settings_of(faults, settings))
        raise UsageError(f"{wrong}: {describe_faults(error, content=content)}") from error


def as_tuple(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Return texts as a tuple, with one element for a single text.

    Args:
        texts: A text, or several.
    """
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _settings_of(faults: Sequence[tuple[str, str]], settings: Sequence[str]) -> list[str]:
    """Return the settings that cause faults.

    A fault with a path is matched by its path. A fault of the whole document is matched by the last name of a setting
    in its text. If none match, all settings are returned, since together they make the document invalid.
    """
    found = []
    for setting in settings:
        place = setting.partition("=")[0]
        name = re.compile(rf"\b{re.escape(place.rpartition('.')[2])}\b")
        if any(
            f"{path}.".startswith(f"{place}.") or f"{place}.".startswith(f"{path}.")
            if path
            else name.search(fault)
            for path, fault in faults
        ):
            found.append(setting)
    return found or list(settings)


def compare_settings(document: AnyDocument, other: AnyDocument) -> list[str]:
    """Return the differences of two documents in words.

    Args:
        document: A document.
        other: A document of the same type.

    Returns:
        One text per difference, `path.to.key is value, not other value`.
    """
    return list(_differences(document.model_dump(mode="json"), other.model_dump(mode="json"), path=""))


def _differences(value: Any, other: Any, *, path: str) -> Iterator[str]:
    """Yield the differences of two values."""
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        for key in value:
            yield from _differences(value[key], other[key], path=f"{path}.{key}" if path else key)
    elif value != other:
        yield f"{path} is {json.dumps(value)}, not {json.dumps(other)}"


def _nearest(place: dict[str, Any], part: str, *, above: Sequence[str], document: Any) -> str | None:
    """Return the path of the most similar setting.

    It has a similar name at the same place, or the same name elsewhere.
    """
    elsewhere = [path for path in _paths(document) if path.rpartition(".")[2] == part]
    alike = [".".join((*above, name)) for name in get_close_matches(part, place, n=1)]
    return next(iter((*alike, *elsewhere)), None)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Yield the paths of all keys in a document."""
    entries = (
        enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    )
    for key, part in entries:
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            yield path
        yield from _paths(part, path)


def _parse(value: str) -> Any:
    """Parse a value as JSON, or keep it as text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _put(content: Any, path: str, value: Any) -> None:
    """Replace the value at a path of a document in place."""
    *parents, last = path.split(".")
    place = content
    for depth, part in enumerate(parents):
        place = place[_find(place, part, path=path, above=parents[:depth], document=content)]
    place[_find(place, last, path=path, above=parents, document=content)] = value


def _find(place: Any, part: str, *, path: str, above: Sequence[str], document: Any) -> str | int:
    """Return the key or index for a part of a path.

    Raises:
        UsageError: The part does not exist.
    """
    where = ".".join(above) or "the document"
    if isinstance(place, dict):
        if part in place:
            return part
        renamed = RENAMED_FIELDS.get(part)
        if renamed is not None and renamed in place:
            return renamed
        nearest = _nearest(place, part, above=above, document=document)
        perhaps = f" (perhaps {nearest})" if nearest else ""
        raise UsageError(f"--set {path}: {where} has no {part!r}{perhaps}. Use one of {', '.join(place)}.")
    if isinstance(place, list):
        if part.isdecimal() and int(part) < len(place):
            return int(part)
        entries = f"Use an entry from 0 to {len(place) - 1}" if place else "It has no entries"
        raise UsageError(f"--set {path}: {where} has no entry {part!r}. {entries}.")
    raise UsageError(f"--set {path}: {where} is the value {json.dumps(place)}, which has no parts.")
