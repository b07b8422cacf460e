"""Published results and reproductions of papers."""

from typing import Literal

from pydantic import Field

from scanseg.specs.base import Document, RenamedFields
from scanseg.specs.records.report import DistanceUnit, RuleName

Paper = Literal["msvm-unet", "xlstm-unet"]
Protocol = Literal["published", "held-out"]
Variant = Literal["bot", "enc"]
Measure = Literal["dice", "dice_of_cases", "hd95", "nsd", "f1"]
"""Measure of a table.

Scores are means over labels of the means over cases. `dice_of_cases` is the mean over cases of the means over labels.
`f1` is the mean over images of the F1 of their instances.
"""


class PublishedResult(Document):
    """One row of a published table."""

    method: str
    """Name in the table, with its variant."""
    paper: Paper
    """Paper with the table."""
    data: str
    """Name of the data set."""
    num_axes: Literal[2, 3]
    """Number of spatial axes of the network."""
    variant: Variant | None = None
    """Variant of the paper's own network. `None`: a baseline, or a network without variants."""
    is_own: bool = False
    """The row is the paper's own network instead of a baseline."""
    measures: dict[Measure, float]
    """Dice, NSD and F1 from 0 to 1, HD95 in the printed unit."""
    labels: dict[str, float] = Field(default_factory=dict)
    """Dice of each label from 0 to 1, if printed."""
    note: str = ""
    """Origin of the numbers, if it matters for a comparison."""


class PublishedResults(Document):
    """All published rows with their sources."""

    sources: dict[Paper, str]
    """Reference of each paper."""
    rows: tuple[PublishedResult, ...]
    """Rows of all tables."""


class Spread(Document):
    """Mean and standard deviation of a score over seeds."""

    mean: float
    """Mean, in the unit of the score."""
    std: float | None
    """Sample standard deviation, in the unit of the score. `None`: one seed."""


class ReproductionRow(Document):
    """One row of a reproduction's table."""

    method: str
    """Name of the network."""
    origin: Literal["here", "published"]
    """Origin of the row: trained by us, or copied from the paper."""
    checkpoint: str
    """Scored weights, or `as published`."""
    seeds: tuple[int, ...] = ()
    """Seeds of the trainings. Empty in published rows."""
    num_cases: int | None = None
    """Number of scored cases. `None`: a published row."""
    measures: dict[Measure, Spread]
    """Scores over seeds: Dice, NSD and F1 from 0 to 1, HD95 in the table's unit."""
    labels: dict[str, Spread | None] = Field(default_factory=dict)
    """Dice of each label over seeds. `None`: no case has the label."""
    parameters: int | None = None
    """Parameters of the network. `None`: a published row."""
    training_seconds: float | None = None
    """Training time in seconds, mean over seeds. `None`: a published row."""
    epochs_done: float | None = None
    """Finished epochs, mean over seeds. `None`: a published row."""
    epochs_planned: int | None = None
    """Planned epochs. `None`: a published row."""
    note: str = ""
    """Remark on the row, such as the number of infinite HD95 that are left out."""


class ReproductionSetup(RenamedFields):
    """Choices of a reproduction, written before its first training."""

    format: Literal[1] = 1
    """Version of the file format."""
    paper: Paper
    """The paper."""
    data: str
    """Name of the data set."""
    num_axes: Literal[2, 3]
    """Number of spatial axes of the networks."""
    protocol: Protocol
    """Protocol of the reproduction."""
    variant: Variant | None
    """Variant of xLSTM-UNet. `None`: another network."""
    quick: bool
    """A short trial with reduced trainings."""
    encoder: str
    """Origin of the encoder's initial weights. Empty: the network has none."""
    optimizer: Literal["sgd", "adamw"] | None = None
    """Optimizer of the published xLSTM-UNet. `None`: an older setup without it."""
    scored_cases: tuple[str, ...]
    """Names of the scored cases."""
    scored: str
    """Description of the scored cases."""
    chosen_on_scored: bool
    """The best weights are selected on the scored cases, as published."""
    notes: tuple[str, ...]
    """Remarks of the conversion of the data set."""


class Reproduction(RenamedFields):
    """The table of a reproduction with its notes."""

    format: Literal[1] = 1
    """Version of the file format."""
    paper: Paper
    """The paper."""
    data: str
    """Name of the data set."""
    num_axes: Literal[2, 3]
    """Number of spatial axes of the networks."""
    protocol: Protocol
    """Protocol of the reproduction."""
    quick: bool
    """A short trial with reduced trainings."""
    rule: RuleName
    """Rule for the scores of empty labels and for the scored slices."""
    distance_unit: DistanceUnit
    """Unit of HD95."""
    tolerance: str = ""
    """Tolerance of NSD. Empty: the table has no NSD."""
    scored: str
    """Description of the scored cases."""
    train_cases: int
    """Number of training cases."""
    encoder: str
    """Origin of the encoder's initial weights. Empty: all networks start from random weights."""
    notes: tuple[str, ...]
    """Remarks of the conversion of the data set."""
    rows: tuple[ReproductionRow, ...]
    """Rows of the table."""
    missing: tuple[str, ...] = ()
    """Names of the remaining trainings."""
