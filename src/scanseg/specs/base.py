"""The base class of all documents."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scanseg.errors import InputError, reason_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SELF_EXPLAINED = (
    *("value_error", "missing", "extra_forbidden", "union_tag_invalid", "union_tag_not_found"),
    "json_invalid",
)
"""Types of faults whose messages need no value, or contain all values."""
_MAX_QUOTED = 60
"""Longest value that is quoted in a message, in characters."""
_QUOTED = re.compile("'([^']*)'")


class Document(BaseModel):
    """A frozen value that is stored as JSON, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a document from a JSON file.

        Args:
            path: The file.

        Raises:
            InputError: The file cannot be read, is not JSON, or is not a valid document of this class. One message
                lists all faults.
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
        """Return the document as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


RENAMED_FIELDS = {
    "accumulation": "accumulation_steps",
    "average_decay": "ema_decay",
    "averaged": "ema",
    "blocks_begin_as_shortcuts": "zero_init_residual",
    "previous": "first_stage",
    "resident": "case_storage",
    "slice_restoring": "slice_resampling",
}
"""Fields by their names before version 0.1.0. Models and stores that were made with them can still be read."""


class RenamedFields(Document):
    """A document some of whose fields had other names before version 0.1.0."""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_names(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {
            new if (new := RENAMED_FIELDS.get(name)) in cls.model_fields else name: value
            for name, value in content.items()
        }


def describe_faults(error: ValidationError, *, content: object) -> str:
    """Describe all faults of a document in one line.

    Each fault has its path in the document and the value there.

    Args:
        error: The faults that pydantic found.
        content: The document as it was passed. Paths contain only its own keys, without pydantic's names for members of
            a union.
    """
    return "; ".join(
        f"{path}: {fault}" if path else fault for path, fault in list_faults(error, content=content)
    )


def list_faults(error: ValidationError, *, content: object) -> list[tuple[str, str]]:
    """Return the path and the description of every fault.

    Args:
        error: The faults that pydantic found.
        content: The document as it was passed.

    Returns:
        Pairs of path and description. The path of a fault of the whole document is empty.
    """
    return [
        (".".join(map(str, _existing_keys(fault["loc"], content))), _describe(fault))
        for fault in error.errors(include_url=False)
    ]


def _describe(fault: "ErrorDetails") -> str:
    """Describe a fault: expected value, actual value, and the nearest valid name.

    Long values are left out. Names are suggested if the valid names are listed.
    """
    message, context = fault["msg"].removeprefix("Value error, "), fault.get("ctx", {})
    if fault["type"] not in _SELF_EXPLAINED:
        text = json.dumps(fault["input"], default=str)
        message += f", not {text}" if len(text) <= _MAX_QUOTED else ""
    names = _QUOTED.findall(str(context.get("expected_tags") or context.get("expected") or ""))
    nearest = get_close_matches(str(context.get("tag", fault["input"])), names, n=1)
    return message + (f" (perhaps {nearest[0]})" if nearest else "")


def _existing_keys(path: tuple[int | str, ...], content: object) -> Iterator[int | str]:
    """Yield the parts of a path that exist in the content.

    The last part may be missing: it is then a missing key.
    """
    place = content
    for part in path:
        if isinstance(place, dict):
            if part in place or part == path[-1]:
                yield part
                place = place.get(part)
        elif isinstance(place, list | tuple) and isinstance(part, int):
            yield part
            place = place[part] if part < len(place) else None


def _parsed(text: str) -> object:
    """Parse a text as JSON. `None`: invalid JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
