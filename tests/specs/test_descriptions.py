"""Every field of every document has a description."""

from collections.abc import Iterator

import pytest

from scanseg.specs import Document


def subclasses(kind: type[Document]) -> Iterator[type[Document]]:
    for subclass in kind.__subclasses__():
        if subclass.__module__.startswith("scanseg.specs."):
            yield subclass
            yield from subclasses(subclass)


@pytest.mark.parametrize("document", sorted(set(subclasses(Document)), key=lambda kind: kind.__name__))
def test_every_field_has_a_description(document):
    assert [name for name, field in document.model_fields.items() if not field.description] == []
