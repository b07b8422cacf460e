"""Values and names of the labels of a source."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scanseg.errors import InputError
from scanseg.imaging import Image
from scanseg.messages import counted
from scanseg.specs import DatasetSpec, canonical_label


def renumber(label_map: Image, values: Mapping[int, int], *, path: object) -> Image:
    """Replace the values of a label map. 0 stays 0.

    Args:
        label_map: Label map of uint8, (1, *spatial).
        values: New value of each old value.
        path: File of the label map, for messages.

    Raises:
        InputError: The label map has a value without a new value.
    """
    found = np.unique(label_map.array)
    unknown = [int(value) for value in found if value and int(value) not in values]
    if unknown:
        raise InputError(
            f"{path}: holds the values {unknown}, which are no labels of the source. The labels are {sorted(values)}."
        )
    table = np.zeros(256, np.uint8)
    for old, new in values.items():
        table[old] = new
    return replace(label_map, array=table[label_map.array])


def compare_labels(found: DatasetSpec, expected: DatasetSpec) -> list[str]:
    """Return the differences between a source's labels and the expected labels.

    Names may have another spelling, see `canonical_label`.

    Args:
        found: Description in the source.
        expected: Description of the data set.
    """
    present = {canonical_label(name): value for name, value in found.foreground.items()}
    faults = []
    for name, values in expected.foreground.items():
        if present.get(canonical_label(name)) != values:
            other = [label for label, value in found.foreground.items() if value == values]
            faults.append(
                f"label {name} should be {_text(values)}, which dataset.json calls {other[0] if other else 'nothing'}. "
                "Correct its name, or convert the data set as msd."
            )
    extra = present.keys() - set(map(canonical_label, expected.foreground))
    if extra and not faults:
        faults.append(f"dataset.json has further labels: {', '.join(sorted(extra))}")
    if found.num_channels != expected.num_channels:
        faults.append(
            f"expected {counted(expected.num_channels, 'channel')} ({', '.join(expected.channel_names)}), got "
            f"{found.num_channels} ({', '.join(found.channel_names)})"
        )
    return faults


def _text(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(list(values))
