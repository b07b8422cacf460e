"""Published splits, which lie beside this module as JSON."""

import json
from collections.abc import Collection
from functools import cache
from importlib import resources

from scanseg.converters.sources import Part

PARTS: tuple[Part, ...] = ("train", "validation", "test")


@cache
def published_split(name: str) -> dict[str, Part]:
    """Return the part of every case or patient of a published split.

    Args:
        name: Name of the data set.
    """
    text = resources.files(__package__).joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return {case: part for part in PARTS for case in content.get(part, [])}


def missing_of(split: dict[str, Part], there: Collection[str], what: str) -> tuple[str, ...]:
    """Say which cases of a published split a source lacks.

    Args:
        split: Part by case.
        there: Cases of the source.
        what: What a case is called, in the plural.
    """
    notes = []
    for part in PARTS:
        of_part = [case for case, value in split.items() if value == part]
        missing = [case for case in of_part if case not in there]
        if missing:
            notes.append(
                f"{len(missing)} of the {len(of_part)} {what} of the published {part} part are not in the source: "
                f"{', '.join(missing)}"
            )
    return tuple(notes)
