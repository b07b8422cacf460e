"""The calibration of a model's probabilities."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from scanseg.specs.base import Document, Temperature
from scanseg.specs.records.source import FileStamp


class ReliabilityBins(Document):
    """Decisions in equal bins of their confidence, from 0 to 1."""

    counts: tuple[NonNegativeInt, ...]
    """Number of decisions in each bin."""
    confidence: tuple[NonNegativeFloat, ...]
    """Sum of their confidence."""
    correct: tuple[NonNegativeFloat, ...]
    """Number of correct decisions."""


class CalibrationRecord(Document):
    """The file `calibration.json` of a model.

    Errors after calibration are measured on cases that the temperatures were not fitted to: each half of the cases has
    the temperatures of the other half. A single case is measured with its own temperatures.
    """

    format: Literal[1] = 1
    """Version of the file format."""
    outputs: tuple[str, ...]
    """Names of the outputs: background and labels, or regions."""
    temperatures: tuple[Temperature, ...]
    """Temperature of each output. That of a label applies to voxels where its logit is the largest."""
    weights: dict[str, FileStamp]
    """Weights that were calibrated, by their path in the folder of the model."""
    num_cases: int
    """Number of validation cases."""
    num_voxels: int
    """Number of voxels of these cases, near labels."""
    error_before: float
    """Expected calibration error without temperatures."""
    error_after: float
    """Expected calibration error with temperatures."""
    loss_before: float
    """Mean negative log-likelihood of the voxels without temperatures."""
    loss_after: float
    """Mean negative log-likelihood of the voxels with temperatures."""
    before: ReliabilityBins
    """Decisions without temperatures."""
    after: ReliabilityBins
    """Decisions with temperatures."""
