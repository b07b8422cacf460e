"""The report of an evaluation: scores of cases and labels."""

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from scanseg.errors import UsageError
from scanseg.specs.base import Document
from scanseg.specs.plan.dataset import LabelValue
from scanseg.specs.records.warned import WarnedRecord

if TYPE_CHECKING:
    import pandas as pd

RuleName = Literal["skip", "transunet", "umamba", "brats", "brats-segmamba"]
"""Name of a rule for the scores of empty labels and for the scored slices.

See `scanseg.evaluation.METRIC_RULES`.
"""

DistanceUnit = Literal["mm", "voxels"]
"""Unit of surface distances: `mm`, or `voxels` as in the tables of MSVM-UNet."""

ReportUnit = Literal["mm", "voxels", "pixels"]
"""Unit of surface distances in a report. `pixels`: the images have no spacing."""


class LabelReport(Document):
    """Scores of one label in one case.

    A score is `None` if it is not counted or was not requested.
    """

    dice: float | None
    """Dice, from 0 to 1."""
    hd95: float | None
    """95th percentile of the surface distances, in the report's unit. Also `None` if it is infinite."""
    asd: float | None = None
    """Mean surface distance of both directions, in the report's unit. Also `None` if it is infinite."""
    hd95_infinite: bool = False
    """HD95 is infinite, because only one of prediction and reference has the label.

    Means leave it out, and the summary counts it.
    """
    nsd: float | None
    """Surface Dice at the label's tolerance, from 0 to 1."""
    volume_ml: float | None
    """Volume of the prediction in ml. `None` for 2D images, and for images without spacing."""
    reference_volume_ml: float | None
    """Volume of the reference in ml. `None` for 2D images, and for images without spacing."""


class CaseReport(Document):
    """Scores of one case."""

    case: str
    """Name of the case."""
    labels: dict[str, LabelReport]
    """Scores of each label."""


class Statistics(Document):
    """One score over all cases in which it is counted."""

    mean: float | None
    """Mean, in the unit of the score. `None`: no case is counted."""
    std: float | None
    """Sample standard deviation (divided by count - 1), in the unit of the score. `None`: fewer than two cases."""
    count: int
    """Number of counted cases."""


class LabelSummary(Document):
    """Scores of one label over all cases."""

    dice: Statistics
    """Dice, from 0 to 1."""
    hd95: Statistics
    """HD95, in the report's unit."""
    hd95_infinite: int
    """Number of cases with infinite HD95. They are left out of `hd95`."""
    asd: Statistics
    """Mean surface distance, in the report's unit."""
    nsd: Statistics
    """Surface Dice at the label's tolerance, from 0 to 1."""
    volume_ml: Statistics
    """Volume of the prediction in ml."""
    reference_volume_ml: Statistics
    """Volume of the reference in ml."""


class Means(Document):
    """Means of scores over labels and cases.

    A mean is `None` if no score is counted.
    """

    dice: float | None
    """Mean Dice, from 0 to 1."""
    hd95: float | None
    """Mean HD95, in the report's unit."""
    asd: float | None
    """Mean of the mean surface distances, in the report's unit."""
    nsd: float | None
    """Mean surface Dice, from 0 to 1."""


class ReportSummary(Document):
    """Scores over all cases."""

    num_cases: int
    """Number of cases."""
    labels: dict[str, LabelSummary]
    """Scores of each label."""
    mean_over_labels: Means
    """Mean over labels of each label's mean over cases."""
    mean_over_cases: Means
    """Mean over cases of each case's mean over the labels counted in it."""

    def label_means(self) -> dict[str, float | None]:
        """Return the mean Dice of each label."""
        return {name: label.dice.mean for name, label in self.labels.items()}


class Report(WarnedRecord):
    """The report of `evaluate`."""

    format: Literal[1] = 1
    """Version of the file format."""
    predictions: str
    """Folder or file of the predictions."""
    references: str
    """Folder or file of the references."""
    labels: dict[str, tuple[LabelValue, ...]]
    """Label values of each label."""
    labels_from: str
    """Origin of the label names: a file, or the method of making them."""
    ignore_label: LabelValue | None
    """Value of the ignore label. `None`: no ignore label."""
    rule: RuleName
    """Rule for the scores of empty labels and for the scored slices."""
    distance_unit: ReportUnit = "mm"
    """Unit of HD95 and ASD. The tolerance of NSD is in mm, or in pixels if this unit is `pixels`."""
    tolerances_mm: dict[str, NonNegativeFloat]
    """Tolerance of each label's NSD in mm, or in pixels if the images have no spacing."""
    unpredicted: tuple[str, ...] = ()
    """Names of references without a prediction that were left out on request."""
    cases: tuple[CaseReport, ...]
    """Scores of each case."""
    summary: ReportSummary
    """Scores of all cases."""

    def to_frame(self) -> "pd.DataFrame":
        """Return the scores of all cases as a table of pandas.

        Returns:
            One row per case and label, with the columns `case`, `label` and the fields of `LabelReport`. Scores that
            are not counted are missing values.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError(
                f"Report.to_frame: expected pandas, which cannot be imported ({error}). Run: pip install pandas"
            ) from error
        rows = [
            {"case": case.case, "label": name, **scores.model_dump()}
            for case in self.cases
            for name, scores in case.labels.items()
        ]
        frame = pd.DataFrame(rows, columns=["case", "label", *LabelReport.model_fields])
        scores = [name for name in LabelReport.model_fields if name != "hd95_infinite"]
        return frame.astype(dict.fromkeys(scores, float))
