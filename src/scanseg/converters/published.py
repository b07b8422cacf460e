"""Published splits, stored as JSON files of the package."""

import json
from collections.abc import Collection
from functools import cache
from importlib import resources

from scanseg.converters.sources import Part

PARTS: tuple[Part, ...] = ("train", "validation", "test")


@cache
def published_split(name: str) -> dict[str, Part]:
    """Return the part of every case or patient in a published split.

    Args:
        name: Name of the data set.

    Returns:
        Part by the name of the case or patient.
    """
    text = resources.files(__package__).joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return {case: part for part in PARTS for case in content.get(part, [])}


def note_missing(split: dict[str, Part], present: Collection[str], noun: str) -> tuple[str, ...]:
    """Return a note for each published part with missing cases.

    Args:
        split: Part by case.
        present: Cases of the source.
        noun: Word for several cases, such as `patients`.
    """
    notes = []
    for part in PARTS:
        of_part = [case for case, value in split.items() if value == part]
        missing = [case for case in of_part if case not in present]
        if missing:
            notes.append(
                f"{len(missing)} of the {len(of_part)} {noun} of the published {part} part are not in the source: "
                f"{', '.join(missing)}"
            )
    return tuple(notes)
