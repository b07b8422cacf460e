"""The base of every document: frozen, strict about keys, stored as JSON."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from scanseg.errors import InputError, reason_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SELF_EXPLAINED = (
    *("value_error", "missing", "extra_forbidden", "union_tag_invalid", "union_tag_not_found"),
    "json_invalid",
)
"""Kinds of faults whose messages have all values in them, or are about no value."""
_MAX_QUOTED = 60
_QUOTED = re.compile("'([^']*)'")


class Document(BaseModel):
    """A value that is stored as JSON: frozen, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a document from a JSON file.

        Args:
            path: The file.

        Raises:
            InputError: The file cannot be read, is not JSON, or does not describe this document. All faults
                are in one message.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = describe_faults(error, content=_parsed(text))
            raise InputError(f"{path}: not a valid {cls.__name__}: {faults}") from error

    def to_json(self) -> str:
        """Return the document as indented JSON, ending with a newline."""
        return self.model_dump_json(indent=2) + "\n"


def describe_faults(error: ValidationError, *, content: Any) -> str:
    """Say every fault that pydantic found in one line, each with its path in the document and what stands there.

    Args:
        error: What pydantic found.
        content: The document as it was given; pydantic's names for the members of a union, which stand in none of its
            places, are left out of the paths.
    """
    return "; ".join(
        f"{path}: {fault}" if path else fault for path, fault in list_faults(error, content=content)
    )


def list_faults(error: ValidationError, *, content: Any) -> list[tuple[str, str]]:
    """Return the path of every fault in the document, empty for one of the whole, and what is wrong there.

    Args:
        error: What pydantic found.
        content: The document as it was given.
    """
    return [
        (".".join(map(str, _existing_places(fault["loc"], content))), _say(fault))
        for fault in error.errors(include_url=False)
    ]


def _say(fault: "ErrorDetails") -> str:
    """Say a fault: what should be there, what is there unless it is long, and the nearest name where names are few."""
    message, context = fault["msg"].removeprefix("Value error, "), fault.get("ctx", {})
    if fault["type"] not in _SELF_EXPLAINED:
        text = json.dumps(fault["input"], default=str)
        message += f", not {text}" if len(text) <= _MAX_QUOTED else ""
    names = _QUOTED.findall(str(context.get("expected_tags") or context.get("expected") or ""))
    nearest = get_close_matches(str(context.get("tag", fault["input"])), names, n=1)
    return message + (f" (perhaps {nearest[0]})" if nearest else "")


def _existing_places(path: tuple[int | str, ...], content: Any) -> Iterator[int | str]:
    """Give the parts of a path that lead into the content; a key that is missing from an object is one."""
    place = content
    for part in path:
        if isinstance(place, dict):
            if part in place or part == path[-1]:
                yield part
                place = place.get(part)
        elif isinstance(place, list | tuple) and isinstance(part, int):
            yield part
            place = place[part] if part < len(place) else None


def _parsed(text: str) -> Any:
    """Return what a text says in JSON; None where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
