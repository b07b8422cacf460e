"""Options of the prediction of folders."""

from dataclasses import dataclass

from scanseg.inference.outputs import OutputFormat
from scanseg.specs import SegmentCodes


@dataclass(frozen=True)
class FolderOptions:
    """Choices for all cases of a prediction."""

    mirror: bool | None = None
    """Average over flips along the plan's `inference.mirror_axes`. `None`: its `inference.mirror`."""
    probabilities: bool = False
    """Write the probabilities too, as `CASE.npz`."""
    uncertainty: bool = False
    """Write the entropy, and the disagreement if flips, networks or plans are averaged."""
    overwrite: bool = False
    """Replace files of an earlier prediction."""
    skip_existing: bool = False
    """Skip cases whose files an earlier prediction of the same model wrote."""
    format: OutputFormat | None = None
    """Format of the label maps. `None`: that of the image."""
    series: tuple[str, ...] = ()
    """UIDs of the DICOM series to segment, or their beginnings. Empty: all cases."""
    segment_codes: SegmentCodes | None = None
    """Codes of the segments of DICOM Segmentations. `None`: all are coded as tissue."""
    pictures: bool = False
    """Write a picture of each image with its label map."""
