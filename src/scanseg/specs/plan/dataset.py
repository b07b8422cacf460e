"""What a data set says about itself: channels, labels, regions."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from scanseg.messages import counted
from scanseg.specs.base import Document

LabelValue = Annotated[int, Field(ge=0, le=255)]

BACKGROUND = "background"
IGNORE = "ignore"


class DatasetSpec(Document):
    """The content of a `dataset.json` in nnU-Net's layout, as far as it matters."""

    name: str
    channel_names: tuple[str, ...] = Field(min_length=1)
    """One name for each input channel, in the order of the file suffixes `_0000`, `_0001` ..."""
    labels: dict[str, LabelValue | tuple[LabelValue, ...]]
    """Name to value, or to the values of a region. `background` is 0; `ignore`, if there, is the highest."""
    regions_class_order: tuple[LabelValue, ...] | None = None
    """Label value that each region writes into a prediction, in the order of the regions; later ones win."""
    file_ending: str
    """Ending of the image files, with its dot: `.nii.gz`, `.png` ..."""

    @field_validator("file_ending")
    @classmethod
    def _check_file_ending(cls, ending: str) -> str:
        if not ending.startswith("."):
            raise ValueError(f'"{ending}" must begin with a dot: ".{ending}"')
        return ending

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels.get(BACKGROUND) != 0:
            raise ValueError('labels must hold "background": 0')
        if not self.foreground:
            raise ValueError("labels must hold a label beside background and ignore")
        if isinstance(self.labels.get(IGNORE), tuple):
            raise ValueError("the ignore label must be one value")
        if self.has_regions:
            if self.regions_class_order is None:
                raise ValueError(
                    "labels hold regions (lists of values), so regions_class_order must be given"
                )
            if len(self.regions_class_order) != len(self.foreground):
                raise ValueError(
                    f"regions_class_order has {counted(len(self.regions_class_order), 'value')} for "
                    f"{counted(len(self.foreground), 'region')}"
                )
            self._check_class_order(self.regions_class_order)
        else:
            values = sorted(value for name, value in self.labels.items() if isinstance(value, int))
            if values != list(range(len(values))):
                raise ValueError(f"label values {values} must be consecutive integers from 0, each used once")
        if self.ignore_label is not None and self.ignore_label <= max(
            max(v) for v in self.foreground.values()
        ):
            raise ValueError(f"the ignore label {self.ignore_label} must be the highest label value")
        return self

    def _check_class_order(self, order: tuple[LabelValue, ...]) -> None:
        """Refuse values that would take a predicted voxel out of the region that wrote it."""
        strange = [
            f"{value} is not in {name} {values}"
            for value, (name, values) in zip(order, self.foreground.items(), strict=True)
            if value not in values
        ]
        if strange:
            raise ValueError(
                f"regions_class_order must name a value of each region, in the regions' order: {'; '.join(strange)}"
            )

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Name of each label or region to segment to the values that make it up, in the order of the outputs.

        Labels come by their values, however they are listed: output i is label i. Regions come as they are listed.
        """
        named = {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in self.labels.items()
            if name not in (BACKGROUND, IGNORE)
        }
        return named if self.has_regions else dict(sorted(named.items(), key=lambda item: item[1]))

    @property
    def has_regions(self) -> bool:
        """Whether labels overlap: they are then segmented each by itself (sigmoid)."""
        return any(isinstance(value, tuple) for value in self.labels.values())

    @property
    def ignore_label(self) -> int | None:
        """Value of the voxels that no loss and no metric may count, if the data set has one."""
        value = self.labels.get(IGNORE)
        return value if isinstance(value, int) else None

    @property
    def num_channels(self) -> int:
        """Input channels of a case."""
        return len(self.channel_names)

    @property
    def num_outputs(self) -> int:
        """Outputs of the network: one for each region, or background and one for each label."""
        return len(self.foreground) if self.has_regions else 1 + len(self.foreground)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Values that a prediction may hold beside background, in rising order."""
        return tuple(sorted({value for values in self.foreground.values() for value in values}))

    @property
    def known_values(self) -> frozenset[int]:
        """Every value that may occur in a label map."""
        values = {value for values in self.foreground.values() for value in values} | {0}
        return frozenset(values if self.ignore_label is None else values | {self.ignore_label})


class Fold(Document):
    """One division of the cases."""

    train: tuple[str, ...]
    """Names of the training cases."""
    validation: tuple[str, ...]
    """Names of the validation cases; none of them is a training case."""

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
    """Where the folds come from: a file's name, or how they were drawn."""
    folds: tuple[Fold, ...]
