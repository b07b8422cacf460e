"""Colours of labels as hexadecimal texts."""

from scanseg.figures import displayed_labels
from scanseg.imaging import palette_colours
from scanseg.specs import DatasetSpec


def colours_of_labels(dataset: DatasetSpec) -> dict[str, str]:
    """Return the colour of each label, such as `#0072b2`.

    Args:
        dataset: The labels.
    """
    palette = palette_colours(dataset.colours)
    return {
        name: "#{:02x}{:02x}{:02x}".format(*palette[values[0]].tolist())
        for name, values in displayed_labels(dataset).items()
    }
