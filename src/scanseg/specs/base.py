"""The base of every document: frozen, strict about keys, stored as JSON."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from scanseg.errors import InputError


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
            raise InputError(f"{path}: cannot be read ({error})") from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{path}: not a valid {cls.__name__}: {describe_faults(error)}") from error

    def to_json(self) -> str:
        """Return the document as indented JSON, ending with a newline."""
        return self.model_dump_json(indent=2) + "\n"


def describe_faults(error: ValidationError) -> str:
    """Say every fault that pydantic found in one line, each with its path in the document."""
    faults = (
        f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    )
    return "; ".join(faults)
