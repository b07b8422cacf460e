"""Records with warnings about the input."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from scanseg.specs.base import Document


class WarnedRecord(Document):
    """A record with warnings about its input.

    Without warnings, its JSON has no such field.
    """

    warnings: tuple[str, ...] = ()
    """Unusual properties of the input, such as files that are left out."""

    @model_serializer(mode="wrap")
    def _omit_no_warnings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if not content.get("warnings"):
            content.pop("warnings", None)
        return content
