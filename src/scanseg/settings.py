"""Settings: changes of a document by text, as in `--set path.to.key=value`."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from scanseg.documents import JSONLimitError, NotJSONError, parse_json
from scanseg.errors import UsageError
from scanseg.messages import first_lines, shortened
from scanseg.specs import ALL_FIELDS, RENAMED_FIELDS, Document, describe_faults, list_faults

AnyDocument = TypeVar("AnyDocument", bound=Document)
Settings = str | Sequence[str] | Mapping[str, object]
"""Settings as texts `path.to.key=value`, or as values by path."""
_MAX_SETTING = 150
"""Longest setting that is quoted in a message, in characters."""
_MAX_SETTINGS = 3
"""Largest number of settings that are quoted in a message."""
_MAX_NAMES = 1000
"""Longest list of names in a message, in characters."""
_MAX_DIGITS = 9
"""Largest number of digits of the number of an entry."""
_MAX_TEXT = 10_000
"""Longest value that is a plain text, in characters."""


def apply_settings(document: AnyDocument, settings: Sequence[str]) -> AnyDocument:
    """Return a document with changed settings.

    The whole document is checked once, after the last setting.

    Args:
        document: The document. It is not changed.
        settings: Texts `path.to.key=value`, applied in order. A part of the path is a key, or the number of an entry
            from 0. The value is read as JSON, or as plain text if it is not JSON. The limits of `scanseg.documents`
            apply to it.

    Raises:
        UsageError: A text has another form, a path does not exist, or the changed document is invalid.
    """
    if not settings:
        return document
    settings = as_tuple(settings)
    content = document.model_dump(mode="json", context={ALL_FIELDS: True})
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"{_quoted(setting)}: expected path.to.key=value.")
        _put(content, path, _parse(value, setting))
    try:
        return type(document).model_validate_json(json.dumps(content))
    except ValidationError as error:
        faults = list_faults(error, content=content)
        wrong = _settings_of(faults, settings)
        named = " ".join(_quoted(setting) for setting in wrong[:_MAX_SETTINGS])
        more = f" and {len(wrong) - _MAX_SETTINGS} more" if len(wrong) > _MAX_SETTINGS else ""
        raise UsageError(f"{named}{more}: {describe_faults(error, content=content)}") from error


def as_tuple(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Return texts as a tuple, with one element for a single text.

    Args:
        texts: A text, or several.
    """
    return (texts,) if isinstance(texts, str) else tuple(texts)


def setting_texts(settings: Settings) -> tuple[str, ...]:
    """Return settings as texts `path.to.key=value`.

    Args:
        settings: Texts, or values by path, such as `{"training.epochs": 50}`. A value is anything that JSON can hold.

    Raises:
        UsageError: A path is no text, or JSON cannot hold a value.
    """
    if not isinstance(settings, Mapping):
        return as_tuple(settings)
    texts = []
    for path, value in settings.items():
        if not isinstance(path, str) or "=" in path:
            raise UsageError(
                f"settings: expected a path such as 'training.epochs' as key, got {shortened(repr(path))}."
            )
        try:
            texts.append(f"{path}={json.dumps(value)}")
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"settings: {path}: expected a number, text, list or dictionary, got "
                f"{type(value).__name__} ({error}). Pass a plain Python value."
            ) from error
    return tuple(texts)


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
        One text per difference, `path.to.key is value, not other value`. Long values are shortened, and differences
        after the twentieth are counted.
    """
    differences = _differences(document.model_dump(mode="json"), other.model_dump(mode="json"), path="")
    return first_lines(list(differences))


def _differences(value: Any, other: Any, *, path: str) -> Iterator[str]:
    """Yield the differences of two values."""
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        for key in value:
            yield from _differences(value[key], other[key], path=f"{path}.{key}" if path else key)
    elif value != other:
        yield f"{path} is {shortened(json.dumps(value))}, not {shortened(json.dumps(other))}"


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


def _quoted(setting: str) -> str:
    """Return a setting as on the command line, shortened."""
    return f"--set {shortened(setting, _MAX_SETTING)}"


def _parse(value: str, setting: str) -> Any:
    """Parse a value as JSON, or keep it as text.

    Raises:
        UsageError: The value exceeds a limit.
    """
    try:
        return parse_json(value)
    except NotJSONError:
        if not value.isprintable() or len(value) > _MAX_TEXT:
            raise UsageError(
                f"{_quoted(setting)}: expected at most {_MAX_TEXT} printable characters as text, got {len(value)} "
                f"characters. Write a shorter value, or JSON."
            ) from None
        return value
    except JSONLimitError as error:
        raise UsageError(f"{_quoted(setting)}: {error}.") from error


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
    where, shown = shortened(".".join(above)) or "the document", f"--set {shortened(path, _MAX_SETTING)}"
    part_shown = repr(shortened(part))
    if isinstance(place, dict):
        if part in place:
            return part
        renamed = RENAMED_FIELDS.get(part)
        if renamed is not None and renamed in place:
            return renamed
        nearest = _nearest(place, part, above=above, document=document)
        perhaps = f" (perhaps {shortened(nearest)})" if nearest else ""
        names = shortened(", ".join(place), _MAX_NAMES)
        raise UsageError(f"{shown}: {where} has no {part_shown}{perhaps}. Use one of {names}.")
    if isinstance(place, list):
        if part.isdecimal() and len(part) <= _MAX_DIGITS and int(part) < len(place):
            return int(part)
        entries = f"Use an entry from 0 to {len(place) - 1}" if place else "It has no entries"
        raise UsageError(f"{shown}: {where} has no entry {part_shown}. {entries}.")
    raise UsageError(f"{shown}: {where} is the value {shortened(json.dumps(place))}, which has no parts.")
