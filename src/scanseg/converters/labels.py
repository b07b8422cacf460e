"""Label maps with other values than ours."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging import Image
from scanseg.messages import counted
from scanseg.specs import DatasetSpec, canonical_label


def renumber(label_map: Image, values: Mapping[int, int], *, path: object) -> Image:
    """Return a label map with its values replaced; 0 stays.

    Args:
        label_map: Labels of uint8.
        values: Old value to new.
        path: The file, for messages.

    Raises:
        InputError: A value is not among the old ones.
    """
    found = np.unique(label_map.array)
    unknown = [int(value) for value in found if value and int(value) not in values]
    if unknown:
        raise InputError(
            f"{path}: holds the values {unknown}, which are no labels of the source; known are {sorted(values)}."
        )
    table = np.zeros(256, np.uint8)
    for old, new in values.items():
        table[old] = new
    return replace(label_map, array=table[label_map.array])


def compare_labels(found: DatasetSpec, expected: DatasetSpec) -> list[str]:
    """Say how the labels that a source describes differ from those expected; names may be spelt otherwise.

    Args:
        found: What the source says.
        expected: What the data set has.
    """
    there = {canonical_label(name): value for name, value in found.foreground.items()}
    faults = []
    for name, values in expected.foreground.items():
        if there.get(canonical_label(name)) != values:
            other = [label for label, value in found.foreground.items() if value == values]
            faults.append(
                f"label {name} should be {_text(values)}, which dataset.json calls {other[0] if other else 'nothing'}; "
                "mend its name, or convert the data set as msd"
            )
    extra = there.keys() - set(map(canonical_label, expected.foreground))
    if extra and not faults:
        faults.append(f"dataset.json has further labels: {', '.join(sorted(extra))}")
    if found.num_channels != expected.num_channels:
        faults.append(
            f"{counted(found.num_channels, 'channel')} ({', '.join(found.channel_names)}), not {expected.num_channels} "
            f"({', '.join(expected.channel_names)})"
        )
    return faults


def _text(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(list(values))
