"""Description of a data set: channels, labels, regions and folds."""

from typing import Annotated, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from scanseg.messages import counted
from scanseg.specs.base import Document, LeftOutDefaults
from scanseg.specs.records.intensities import is_colour

LabelValue = Annotated[int, Field(ge=0, le=255)]

HexColour = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]

BACKGROUND = "background"
"""Name of the label of value 0."""
IGNORE = "ignore"
"""Name of the ignore label."""


class DatasetSpec(LeftOutDefaults):
    """The used content of a `dataset.json` in nnU-Net's layout."""

    left_out_defaults = ("label_colours",)

    name: str
    """Name of the data set."""
    channel_names: tuple[str, ...] = Field(min_length=1)
    """One name for each input channel, in the order of the file suffixes `_0000`, `_0001` ..."""
    labels: dict[str, LabelValue | tuple[LabelValue, ...]]
    """Name to label value, or to the label values of a region.

    `background` is 0. `ignore`, if it exists, has the highest value.
    """
    regions_class_order: tuple[LabelValue, ...] | None = None
    """Label value that each region writes into a prediction, in the order of the regions.

    Later regions overwrite earlier ones. `None`: the data set has no regions.
    """
    file_ending: str
    """Ending of the image files, with its dot: `.nii.gz`, `.png` ..."""
    label_colours: dict[str, HexColour] = Field(default_factory=dict)
    """Colours of labels in pictures of label maps, as `#rrggbb` by name. Colour masks have them.

    Labels without a colour get one of a fixed palette. Empty: left out of the JSON.
    """

    @field_validator("file_ending")
    @classmethod
    def _check_file_ending(cls, ending: str) -> str:
        if not ending.startswith("."):
            raise ValueError(f'expected a dot at the start, got "{ending}". Write ".{ending}"')
        return ending

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels.get(BACKGROUND) != 0:
            raise ValueError('labels: expected "background": 0')
        if not self.foreground:
            raise ValueError("labels: expected a label besides background and ignore")
        unknown = sorted(self.label_colours.keys() - self.labels.keys())
        if unknown:
            raise ValueError(f"label_colours: expected names of labels, got {', '.join(unknown)}")
        if isinstance(self.labels.get(IGNORE), tuple):
            raise ValueError("labels: expected one value for ignore")
        if self.has_regions:
            if self.regions_class_order is None:
                raise ValueError("regions_class_order is missing: labels contain regions (lists of values)")
            if len(self.regions_class_order) != len(self.foreground):
                raise ValueError(
                    f"regions_class_order: got {counted(len(self.regions_class_order), 'value')} for "
                    f"{counted(len(self.foreground), 'region')}. Give one value per region"
                )
            self._check_class_order(self.regions_class_order)
        else:
            values = sorted(value for name, value in self.labels.items() if isinstance(value, int))
            if values != list(range(len(values))):
                raise ValueError(
                    f"labels: expected consecutive integers from 0, each used once, got {values}"
                )
        if self.ignore_label is not None and self.ignore_label <= max(
            max(v) for v in self.foreground.values()
        ):
            raise ValueError(
                f"labels: expected ignore to have the highest label value, got {self.ignore_label}"
            )
        return self

    def _check_class_order(self, order: tuple[LabelValue, ...]) -> None:
        """Check that each region writes one of its own values."""
        wrong = [
            f"{value} is not in {name} {values}"
            for value, (name, values) in zip(order, self.foreground.items(), strict=True)
            if value not in values
        ]
        if wrong:
            raise ValueError(
                f"regions_class_order: expected one value of each region, in the regions' order: {'; '.join(wrong)}"
            )

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Label values of each label or region, in output order.

        Labels are in the order of their values: output i is label i. Regions are in listed order.
        """
        named = {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in self.labels.items()
            if name not in (BACKGROUND, IGNORE)
        }
        return named if self.has_regions else dict(sorted(named.items(), key=lambda item: item[1]))

    @property
    def has_colour_pictures(self) -> bool:
        """True if the channels are red, green and blue."""
        return self.num_channels == 3 and all(map(is_colour, self.channel_names))

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """Red, green and blue of label values with their own colour."""
        return {
            value: (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16))
            for name, colour in self.label_colours.items()
            if isinstance(value := self.labels[name], int)
        }

    def without_colours(self) -> "DatasetSpec":
        """Return the description without colours, which change no training."""
        return self.model_copy(update={"label_colours": {}})

    @property
    def has_regions(self) -> bool:
        """True if labels may overlap: each then has its own sigmoid."""
        return any(isinstance(value, tuple) for value in self.labels.values())

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels without annotation. `None`: no ignore label.

        No loss and no score counts these voxels.
        """
        value = self.labels.get(IGNORE)
        return value if isinstance(value, int) else None

    @property
    def num_channels(self) -> int:
        """Input channels of a case."""
        return len(self.channel_names)

    @property
    def num_outputs(self) -> int:
        """Outputs of the network: one per region, or background and labels."""
        return len(self.foreground) if self.has_regions else 1 + len(self.foreground)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values of a prediction without background, in ascending order."""
        return tuple(sorted({value for values in self.foreground.values() for value in values}))

    @property
    def known_values(self) -> frozenset[int]:
        """All valid values of a label map."""
        values = {value for values in self.foreground.values() for value in values} | {0}
        return frozenset(values if self.ignore_label is None else values | {self.ignore_label})


class Fold(Document):
    """One division of the cases into training and validation."""

    train: tuple[str, ...]
    """Names of the training cases."""
    validation: tuple[str, ...]
    """Names of the validation cases. None of them is a training case."""

    @model_validator(mode="after")
    def _check_disjoint(self) -> Self:
        both = sorted(set(self.train) & set(self.validation))
        if both:
            several = "case {} is" if len(both) == 1 else "cases {} are"
            raise ValueError(f"{several.format(', '.join(both))} in training and in validation")
        return self


class Splits(Document):
    """The folds of a data set."""

    source: str
    """Origin of the folds: a file name, or the method of drawing them."""
    folds: tuple[Fold, ...]
    """The folds, by their number."""
