"""The record of a prediction: what was segmented, by which model, how."""

from typing import Literal

from scanseg.specs.base import Document


class PredictedCase(Document):
    """One case of a prediction."""

    case: str
    images: tuple[str, ...]
    """Files of the image."""
    label_map: str | None
    """File of the label map, in the output folder; None: the case could not be segmented."""
    probabilities: str | None
    """File of the probabilities, in the output folder, if they were asked for."""
    entropy: str | None = None
    """File of the entropy, in the output folder, if uncertainty was asked for."""
    disagreement: str | None = None
    """File of the disagreement of flips and networks, if uncertainty was asked for and there are several."""
    seconds: float
    """Time from the image in memory to the label map in its file."""
    warning: str | None = None
    """What is strange about the image."""
    fault: str | None
    """Why the case could not be segmented."""
    skipped: bool = False
    """Its files were there already."""


class PredictionRecord(Document):
    """Written beside the label maps, as `prediction.json`."""

    format: Literal[1] = 1
    model: str
    """The model folder, or how else the network was given."""
    identity: str | None = None
    """Checksum of its plans, weights and postprocessing; None: from a time when none was taken."""
    recipe: str
    """Name of the recipe of the model's plan."""
    device: str
    """The device in words, with its name."""
    precision: str
    mirror: bool
    """Predictions were averaged over flips."""
    versions: dict[str, str]
    """scanseg, python, torch, numpy and the platform."""
    started: str
    """Date and time, ISO 8601 in UTC."""
    seconds: float
    warnings: tuple[str, ...] = ()
    """What may not be as it was meant: files of other endings that were skipped."""
    cases: tuple[PredictedCase, ...]
