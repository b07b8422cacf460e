"""The report of an evaluation of instances: objects found, missed and false, and their F1."""

from typing import Annotated, Literal

from pydantic import Field

from scanseg.specs.base import Document
from scanseg.specs.records.report import Statistics

InstanceSource = Literal["numbers", "components", "grown"]
"""How files say which voxels are one object: a number for each; connected components of the interior; these, grown
by the voxels of the boundary next to them."""


class InstanceCase(Document):
    """Objects of one image; a score is null where neither file has an object."""

    case: str
    true_positives: int
    false_positives: int
    false_negatives: int
    f1: float | None
    precision: float | None
    recall: float | None
    mean_iou: float | None
    """Over the matched pairs."""
    panoptic_quality: float | None


class InstanceSummary(Document):
    """Objects of all images."""

    num_cases: int
    f1: Statistics
    """Over the images; those without any object are not counted."""
    median_f1: float | None
    pooled_f1: float | None
    """Of the objects of all images taken together."""
    panoptic_quality: Statistics


class InstanceReport(Document):
    """What `evaluate --instances` found."""

    format: Literal[1] = 1
    predictions: str
    """Folder or file of the predictions."""
    references: str
    """Folder or file of the references."""
    instances: InstanceSource
    """How the predictions say which voxels are one object."""
    iou: Annotated[float, Field(gt=0, le=1)]
    """Least intersection over union of a matched pair."""
    border: Annotated[int, Field(ge=0)]
    """Objects that touch this many pixels at the border of y and x are left out on both sides."""
    unpredicted: tuple[str, ...] = ()
    """References that were left out because they have no prediction, where that was asked for."""
    cases: tuple[InstanceCase, ...]
    summary: InstanceSummary
