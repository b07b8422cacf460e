"""The record of a prediction: cases, model, settings and times."""

from typing import Literal

from scanseg.specs.base import Document, RenamedFields
from scanseg.specs.records.source import SourceFile


class PredictedCase(Document):
    """One case of a prediction."""

    case: str
    """Name of the case."""
    images: tuple[str, ...]
    """Files of the image, one per channel. Of DICOM series: the folder or zip file, with `/UID` if it holds several."""
    sources: tuple[SourceFile, ...] | None = None
    """Sizes and dates of these files. `None`: the prediction failed, or an older record without them."""
    checksums: tuple[str, ...] | None = None
    """SHA-256 checksums of these files in hexadecimal. `None`: as for `sources`."""
    series_uids: tuple[str, ...] | None = None
    """Series instance UIDs of DICOM series, one per channel. `None`: other images, or an older record."""
    label_map: str | None
    """File of the label map in the output folder. `None`: the prediction failed."""
    probabilities: str | None
    """File of the probabilities in the output folder. `None`: not requested."""
    entropy: str | None = None
    """File of the entropy in the output folder. `None`: not requested."""
    disagreement: str | None = None
    """File of the disagreement of flips and networks in the output folder.

    `None`: not requested, or a single prediction without flips.
    """
    seconds: float
    """Time in seconds from the image in memory to the written label map."""
    device: str | None = None
    """Device of an earlier prediction that this one continues. `None`: that of the record."""
    precision: str | None = None
    """Precision of an earlier prediction that this one continues. `None`: that of the record."""
    warning: str | None = None
    """Unusual property of the image. `None`: no warning."""
    fault: str | None
    """Reason why the prediction failed. `None`: it succeeded."""
    skipped: bool = False
    """The output files already existed, and the case was not predicted again."""


class PredictionRecord(RenamedFields):
    """The file `prediction.json` beside predicted label maps."""

    format: Literal[1] = 1
    """Version of the file format."""
    model: str
    """Model folder, or the source of the network if it has none."""
    model_digest: str | None = None
    """Checksum of the model's plans, weights and postprocessing. `None`: an older record without one."""
    recipe: str
    """Name of the recipe of the model's plan."""
    device: str
    """Device with its name."""
    precision: str
    """Type of the computation, such as `bfloat16`."""
    mirror: bool
    """Predictions are averaged over flips."""
    versions: dict[str, str]
    """Versions of scanseg, python, numpy, the platform and the library of the network."""
    started: str
    """Start time, ISO 8601 in UTC. A continued prediction keeps that of the first call."""
    seconds: float
    """Total time in seconds of all calls that segmented cases."""
    warnings: tuple[str, ...] = ()
    """Warnings about the input folder, such as skipped files of other endings."""
    cases: tuple[PredictedCase, ...]
    """The cases."""
