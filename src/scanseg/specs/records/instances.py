"""The report of an evaluation of instances."""

from typing import Annotated, Literal

from pydantic import Field

from scanseg.specs.base import Document
from scanseg.specs.records.report import Statistics
from scanseg.specs.records.warned import WarnedRecord

InstanceSource = Literal["numbers", "components", "grown", "separated"]
"""Definition of an instance in a file.

`numbers`: one number per instance. `components`: connected components of the interior. `grown`: these components, grown
by the adjacent voxels of the boundary.
"""


class InstanceCase(Document):
    """Instances of one image.

    A score is `None` if neither file has an instance.
    """

    case: str
    """Name of the case."""
    true_positives: int
    """Number of matched pairs of instances."""
    false_positives: int
    """Number of predicted instances without a match."""
    false_negatives: int
    """Number of reference instances without a match."""
    f1: float | None
    """F1, from 0 to 1."""
    precision: float | None
    """Matched fraction of the predicted instances, from 0 to 1."""
    recall: float | None
    """Matched fraction of the reference instances, from 0 to 1."""
    mean_iou: float | None
    """Mean intersection over union of the matched pairs, from 0 to 1."""
    panoptic_quality: float | None
    """Mean intersection over union of the matched pairs times F1, from 0 to 1."""


class InstanceSummary(Document):
    """Instances of all images."""

    num_cases: int
    """Number of images."""
    f1: Statistics
    """F1 over the images. Images without instances are not counted."""
    median_f1: float | None
    """Median F1 over the images. `None`: no image was counted."""
    pooled_f1: float | None
    """F1 of the pooled instances of all images. `None`: no instances."""
    panoptic_quality: Statistics
    """Panoptic quality over the images."""


class InstanceReport(WarnedRecord):
    """The report of `evaluate --instances`."""

    format: Literal[1] = 1
    """Version of the file format."""
    predictions: str
    """Folder or file of the predictions."""
    references: str
    """Folder or file of the references."""
    instances: InstanceSource
    """Definition of an instance in the predictions."""
    iou: Annotated[float, Field(gt=0, le=1)]
    """Least intersection over union of a matched pair."""
    border: Annotated[int, Field(ge=0)]
    """Width in pixels of the border along y and x. Instances that touch it are left out on both sides."""
    unpredicted: tuple[str, ...] = ()
    """Names of references without a prediction that were left out on request."""
    cases: tuple[InstanceCase, ...]
    """Results of each image."""
    summary: InstanceSummary
    """Results of all images."""
