"""Changes to a document by text: `--set path.to.key=value`."""

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
    """Return the document with settings changed, checked as a whole after the last of them.

    Args:
        document: The document; it stays as it is.
        settings: Texts `path.to.key=value`, applied in this order. A part of the path is a key, or the number
            of an entry, from 0. The value is read as JSON, and as plain text where it is no JSON.

    Raises:
        UsageError: A text has another form, a path leads nowhere, or the changed document is not valid.
    """
    if not settings:
        return document
    settings = as_tuple(settings)
    content = document.model_dump(mode="json")
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {setting}: not of the form path.to.key=value")
        _put(content, path, _parse(value))
    try:
        return type(document).model_validate_json(json.dumps(content))
    except ValidationError as error:
        faults = list_faults(error, content=content)
        asked = " ".join(f"--set {setting}" for setting in _settings_of(faults, settings))
        raise UsageError(f"{asked}: {describe_faults(error, content=content)}") from error


def as_tuple(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Return texts; a caller who gives one alone means it, not its letters."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _settings_of(faults: Sequence[tuple[str, str]], settings: Sequence[str]) -> list[str]:
    """Return the settings that faults are about: by their paths, or by their last names in what is said of the whole.

    All of them where that finds none, since together they have made the document invalid.
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
    """Say in which settings a document differs from another: `path.to.key is value, not other value`."""
    return list(_differences(document.model_dump(mode="json"), other.model_dump(mode="json"), path=""))


def _differences(value: Any, other: Any, *, path: str) -> Iterator[str]:
    """Go down to the values that differ."""
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        for key in value:
            yield from _differences(value[key], other[key], path=f"{path}.{key}" if path else key)
    elif value != other:
        yield f"{path} is {json.dumps(value)}, not {json.dumps(other)}"


def _nearest(place: dict[str, Any], part: str, *, above: Sequence[str], document: Any) -> str | None:
    """Return the path of a setting that was meant, perhaps: of this name elsewhere, or of one much like it here."""
    elsewhere = [path for path in _paths(document) if path.rpartition(".")[2] == part]
    alike = [".".join((*above, name)) for name in get_close_matches(part, place, n=1)]
    return next(iter((*alike, *elsewhere)), None)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Give the paths of all keys in a document."""
    entries = (
        enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    )
    for key, part in entries:
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            yield path
        yield from _paths(part, path)


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _put(content: Any, path: str, value: Any) -> None:
    """Replace what stands at a path; `content` is a private copy of the document."""
    *parents, last = path.split(".")
    place = content
    for depth, part in enumerate(parents):
        place = place[_find(place, part, path=path, above=parents[:depth], document=content)]
    place[_find(place, last, path=path, above=parents, document=content)] = value


def _find(place: Any, part: str, *, path: str, above: Sequence[str], document: Any) -> str | int:
    """Return the key or index that a part of a path names."""
    where = ".".join(above) or "the document"
    if isinstance(place, dict):
        if part in place:
            return part
        if (renamed := RENAMED_FIELDS.get(part)) in place:
            return renamed
        nearest = _nearest(place, part, above=above, document=document)
        perhaps = f" (perhaps {nearest})" if nearest else ""
        raise UsageError(f"--set {path}: {where} has no {part!r}{perhaps}; it has {', '.join(place)}")
    if isinstance(place, list):
        if part.isdecimal() and int(part) < len(place):
            return int(part)
        entries = f"entries 0 to {len(place) - 1}" if place else "no entries"
        raise UsageError(f"--set {path}: {where} has no entry {part!r}; it has {entries}")
    raise UsageError(f"--set {path}: {where} is the value {json.dumps(place)} and has no parts")
