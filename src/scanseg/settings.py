"""Changes to a document by text: `--set path.to.key=value`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from scanseg.errors import UsageError
from scanseg.specs import Document, describe_faults

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
    content = document.model_dump(mode="json")
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {setting}: not of the form path.to.key=value")
        _put(content, path, _parse(value))
    try:
        return type(document).model_validate_json(json.dumps(content))
    except ValidationError as error:
        asked = " ".join(f"--set {setting}" for setting in settings)
        raise UsageError(f"{asked}: {describe_faults(error, content=content)}") from error


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
        place = place[_find(place, part, path=path, above=parents[:depth])]
    place[_find(place, last, path=path, above=parents)] = value


def _find(place: Any, part: str, *, path: str, above: Sequence[str]) -> str | int:
    """Return the key or index that a part of a path names."""
    where = ".".join(above) or "the document"
    if isinstance(place, dict):
        if part in place:
            return part
        raise UsageError(f"--set {path}: {where} has no {part!r}; it has {', '.join(place)}")
    if isinstance(place, list):
        if part.isdecimal() and int(part) < len(place):
            return int(part)
        entries = f"entries 0 to {len(place) - 1}" if place else "no entries"
        raise UsageError(f"--set {path}: {where} has no entry {part!r}; it has {entries}")
    raise UsageError(f"--set {path}: {where} is the value {json.dumps(place)} and has no parts")
