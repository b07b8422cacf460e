"""The base class of all documents."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from scanseg.documents import parse_document, read_document
from scanseg.errors import InputError
from scanseg.messages import MOST_LINES, shortened

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SELF_EXPLAINED = (
    *("value_error", "missing", "extra_forbidden", "union_tag_invalid", "union_tag_not_found"),
    "json_invalid",
)
"""Types of faults whose messages need no value, or contain all values."""
_MAX_FAULT = 400
"""Longest description of a fault, in characters."""
_MAX_FAULTS = 1500
"""Longest description of all faults, in characters."""
_MAX_KEY = 60
"""Longest key that is quoted in a path, in characters."""
_QUOTED = re.compile("'([^']*)'")


Size = Annotated[int, Field(gt=0, le=2**16)]
"""Number of voxels along an axis, of features or of patches."""
Count = Annotated[int, Field(gt=0, le=1000)]
"""Number of parts of a network that are built one by one."""
Step = Annotated[int, Field(ge=0, le=10**12)]
"""Number of epochs or of optimizer steps."""
Temperature = Annotated[float, Field(ge=0.01, le=100)]
"""Divisor of logits. Above 1, probabilities become less extreme."""
SpacingMM = Annotated[float, Field(ge=1e-7, le=1e5)]
"""Millimetres per voxel, from electron microscopy (1e-6) to the 999 of an axis that does not exist."""


def _check_case_name(name: str) -> str:
    """Check that a name is valid for a file."""
    if name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError("expected the name of a case without / and \\")
    return name


CaseName = Annotated[str, Field(min_length=1, max_length=240), AfterValidator(_check_case_name)]
"""Name of a case, which names files."""


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
            InputError: The file cannot be read, is no JSON, exceeds a limit of `scanseg.documents`, or is not a valid
                document of this class. One message lists the faults, at most the first twenty.
        """
        text = read_document(path)
        content = parse_document(text, path)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = describe_faults(error, content=content)
            raise InputError(f"{path}: not a valid {cls.__name__}: {faults}") from error

    def to_json(self) -> str:
        """Return the document as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


ALL_FIELDS = "all_fields"
"""Key of the context of `model_dump` with which no setting is left out."""


class LeftOutDefaults(Document):
    """A document whose JSON leaves out some defaults.

    Documents from before these fields keep their text, and models and stores their digest.
    """

    left_out_defaults: ClassVar[tuple[str, ...]] = ()
    """Names of these fields that are settings. A dump with `ALL_FIELDS` has them."""
    left_out_records: ClassVar[tuple[str, ...]] = ()
    """Names of these fields that are measured or recorded. No dump has them."""

    @model_serializer(mode="wrap")
    def _leave_out_defaults(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        settings = () if (info.context or {}).get(ALL_FIELDS) else self.left_out_defaults
        for name in (*settings, *self.left_out_records):
            field = type(self).model_fields[name]
            if getattr(self, name) == field.get_default(call_default_factory=True):
                content.pop(name, None)
        return content


RENAMED_FIELDS = {
    "accumulation": "accumulation_steps",
    "average_decay": "ema_decay",
    "averaged": "ema",
    "blocks_begin_as_shortcuts": "zero_init_residual",
    "cell": "arm",
    "cells": "arms",
    "identity": "model_digest",
    "measured_epoch": "last_monitored_epoch",
    "previous": "first_stage",
    "resident": "case_storage",
    "slice_restoring": "slice_resampling",
    "standing": "progress",
    "waiting": "missing",
    "watched": "best_monitored",
    "watched_epoch": "best_monitored_epoch",
}
"""Fields by their names before version 0.1.0. Documents that were made with them can still be read."""
_RENAMED_VALUES = {"protocol": {"sound": "held-out"}}
"""Values of fields by their names before version 0.1.0."""


class RenamedFields(Document):
    """A document with fields or values of other names before version 0.1.0."""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_names(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        named = {
            new if (new := RENAMED_FIELDS.get(name)) in cls.model_fields else name: value
            for name, value in content.items()
        }
        renamed = {
            name: values[named[name]]
            for name, values in _RENAMED_VALUES.items()
            if name in cls.model_fields and named.get(name) in values
        }
        return named | renamed


def describe_faults(error: ValidationError, *, content: object) -> str:
    """Describe the faults of a document in one line.

    Each fault has its path in the document and the value there. Long values are shortened. At most the first twenty
    faults are described.

    Args:
        error: The faults that pydantic found.
        content: The document as it was passed. Paths contain only its own keys, without pydantic's names for members of
            a union.
    """
    faults = [f"{path}: {fault}" if path else fault for path, fault in list_faults(error, content=content)]
    shown = faults[:1]
    for fault in faults[1:MOST_LINES]:
        if len("; ".join((*shown, fault))) > _MAX_FAULTS:
            break
        shown.append(fault)
    more = [f"and {len(faults) - len(shown)} more"] if len(faults) > len(shown) else []
    return "; ".join([*shown, *more])


def list_faults(error: ValidationError, *, content: object) -> list[tuple[str, str]]:
    """Return the path and the description of every fault.

    Args:
        error: The faults that pydantic found.
        content: The document as it was passed.

    Returns:
        Pairs of path and description. The path of a fault of the whole document is empty.
    """
    return [
        (
            ".".join(shortened(str(key), _MAX_KEY) for key in _existing_keys(fault["loc"], content)),
            _describe(fault),
        )
        for fault in error.errors(include_url=False)
    ]


def _describe(fault: "ErrorDetails") -> str:
    """Describe a fault: expected value, actual value, and the nearest valid name.

    Long values are shortened. Names are suggested if the valid names are listed.
    """
    context = fault.get("ctx", {})
    message = shortened(fault["msg"].removeprefix("Value error, "), _MAX_FAULT)
    if fault["type"] not in _SELF_EXPLAINED:
        message += f", not {shortened(json.dumps(fault['input'], default=str))}"
    names = _QUOTED.findall(str(context.get("expected_tags") or context.get("expected") or ""))
    nearest = get_close_matches(str(context.get("tag", fault["input"]))[:_MAX_KEY], names, n=1)
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
