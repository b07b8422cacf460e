"""The report of an evaluation: scores of every case and label, and their means."""

from typing import Literal

from pydantic import NonNegativeFloat

from scanseg.specs.base import Document
from scanseg.specs.plan.dataset import LabelValue

RuleName = Literal["skip", "transunet", "umamba", "brats", "brats-segmamba"]
"""What empty masks score, and in which slices labels are scored; see `scanseg.evaluation.METRIC_RULES`."""

DistanceUnit = Literal["mm", "voxels"]
"""Unit of surface distances: with the spacing, or as MSVM-UNet's tables, without."""


class LabelReport(Document):
    """Scores of one label in one case; null is not counted (or was not asked for)."""

    dice: float | None
    hd95: float | None
    """95th percentile of the surface distances, in the report's unit; null also where it is infinite."""
    asd: float | None = None
    """Mean surface distance of both directions, in the report's unit; null also where it is infinite."""
    hd95_infinite: bool = False
    """Only one of prediction and reference has the label; such a HD95 is left out of means and counted."""
    nsd: float | None
    """Surface Dice at the label's tolerance."""
    volume_ml: float | None
    """Volume of the prediction; null for images of two axes."""
    reference_volume_ml: float | None


class CaseReport(Document):
    """Scores of one case."""

    case: str
    labels: dict[str, LabelReport]


class Statistics(Document):
    """One score over the cases in which it was counted."""

    mean: float | None
    """None: no case was counted."""
    std: float | None
    """Standard deviation of a sample (divided by count - 1); None: fewer than two cases."""
    count: int


class LabelSummary(Document):
    """One label over all cases."""

    dice: Statistics
    hd95: Statistics
    hd95_infinite: int
    """Cases whose HD95 is infinite; they are in no mean of it."""
    asd: Statistics
    nsd: Statistics
    volume_ml: Statistics
    reference_volume_ml: Statistics


class Means(Document):
    """Means over labels and cases; None: nothing was counted."""

    dice: float | None
    hd95: float | None
    asd: float | None
    nsd: float | None


class ReportSummary(Document):
    """Scores over all cases."""

    num_cases: int
    labels: dict[str, LabelSummary]
    mean_over_labels: Means
    """Mean over labels of each label's mean over cases."""
    mean_over_cases: Means
    """Mean over cases of each case's mean over the labels counted in it."""

    def label_means(self) -> dict[str, float | None]:
        """Return the mean Dice of each label."""
        return {name: label.dice.mean for name, label in self.labels.items()}


class Report(Document):
    """What `evaluate` found."""

    format: Literal[1] = 1
    predictions: str
    """Folder or file of the predictions."""
    references: str
    """Folder or file of the references."""
    labels: dict[str, tuple[LabelValue, ...]]
    """Values that make up each label."""
    labels_from: str
    """Where the names of the labels come from: a file, or how they were made."""
    ignore_label: LabelValue | None
    rule: RuleName
    """What empty masks score, and in which slices labels are scored."""
    distance_unit: DistanceUnit = "mm"
    """Unit of HD95 and ASD; NSD is always in mm."""
    tolerances_mm: dict[str, NonNegativeFloat]
    """Tolerance of each label's NSD."""
    unpredicted: tuple[str, ...] = ()
    """References that were left out because they have no prediction, where that was asked for."""
    cases: tuple[CaseReport, ...]
    summary: ReportSummary
