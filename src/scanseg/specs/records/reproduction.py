"""What papers reported, and what a reproduction of one gives."""

from typing import Literal

from pydantic import Field

from scanseg.specs.base import Document
from scanseg.specs.records.report import DistanceUnit, RuleName

Paper = Literal["msvm-unet", "xlstm-unet"]
Protocol = Literal["published", "sound"]
Variant = Literal["bot", "enc"]
Measure = Literal["dice", "dice_of_cases", "hd95", "nsd", "f1"]
"""Dice and the others are means over labels of the means over cases; `dice_of_cases` the other way round; `f1` is the
mean over images of the F1 of their objects."""


class PublishedResult(Document):
    """One row of a published table."""

    method: str
    """Name as the table has it, with its variant."""
    paper: Paper
    """Paper that printed it."""
    data: str
    """Name of the data set."""
    num_axes: Literal[2, 3]
    variant: Variant | None = None
    """Of the paper's own network; None: a peer, or a network without variants."""
    is_own: bool = False
    """Whether it is the paper's own network, rather than a peer."""
    measures: dict[Measure, float]
    """Dice, NSD and F1 from 0 to 1; HD95 as printed."""
    labels: dict[str, float] = Field(default_factory=dict)
    """Dice of each label, where it was printed."""
    note: str = ""
    """How the numbers came about, as far as it matters for a comparison."""


class PublishedResults(Document):
    """All published rows, and where they come from."""

    sources: dict[Paper, str]
    rows: tuple[PublishedResult, ...]


class Spread(Document):
    """A score over seeds."""

    mean: float
    std: float | None
    """Of a sample; None: one seed."""


class ReproductionRow(Document):
    """One row of a reproduction's table."""

    method: str
    origin: Literal["here", "published"]
    checkpoint: str
    """Which weights were scored, or `as published`."""
    seeds: tuple[int, ...] = ()
    num_cases: int | None = None
    measures: dict[Measure, Spread]
    labels: dict[str, Spread | None] = Field(default_factory=dict)
    """Dice of each label; None: no case has it."""
    parameters: int | None = None
    training_seconds: float | None = None
    """Mean over seeds."""
    epochs_done: float | None = None
    """Mean over seeds."""
    epochs_planned: int | None = None
    note: str = ""


class ReproductionSetup(Document):
    """What a reproduction is of, written before its first training."""

    format: Literal[1] = 1
    paper: Paper
    data: str
    num_axes: Literal[2, 3]
    protocol: Protocol
    variant: Variant | None
    """Of xLSTM-UNet."""
    quick: bool
    encoder: str
    """Where the encoder's weights come from, in words; empty where the network has no such weights."""
    scored_cases: tuple[str, ...]
    scored: str
    """What these are, in words."""
    chosen_on_scored: bool
    """Whether the best weights are chosen on the very cases that are scored, as published."""
    notes: tuple[str, ...]
    """What the conversion had to say."""


class Reproduction(Document):
    """The table of a reproduction, and what must be said with it."""

    format: Literal[1] = 1
    paper: Paper
    data: str
    num_axes: Literal[2, 3]
    protocol: Protocol
    quick: bool
    rule: RuleName
    distance_unit: DistanceUnit
    tolerance: str = ""
    """Of NSD, in words; empty where the table has no NSD."""
    scored: str
    """Which cases were scored, in words."""
    train_cases: int
    encoder: str
    """Where the encoder's weights come from, in words; empty where networks begin from random weights anyway."""
    notes: tuple[str, ...]
    rows: tuple[ReproductionRow, ...]
    waiting: tuple[str, ...] = ()
    """Trainings that are still to be done."""
