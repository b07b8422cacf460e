"""Codes of segments in DICOM Segmentations."""

from pydantic import Field

from scanseg.specs.base import Document


class Code(Document):
    """A code of a coding scheme, such as 10200004, SCT, Liver."""

    value: str = Field(min_length=1, max_length=16)
    """Value of the code."""
    scheme: str = Field(min_length=1, max_length=16)
    """Coding scheme: `SCT` (SNOMED CT), `DCM`, `FMA` ..."""
    meaning: str = Field(min_length=1, max_length=64)
    """Meaning of the code in words."""


ANATOMICAL_STRUCTURE = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
"""Category of a segment whose code has none."""
TISSUE = Code(value="85756007", scheme="SCT", meaning="Tissue")
"""Category and type of segments without a code."""


class SegmentCode(Document):
    """Codes of one segment."""

    type: Code
    """Type of the segment, such as 10200004, SCT, Liver."""
    category: Code = ANATOMICAL_STRUCTURE
    """Category of the segment. Defaults to an anatomical structure."""


class SegmentCodes(Document):
    """Codes of segments by the names of their labels or regions."""

    segments: dict[str, SegmentCode]
    """Name of a label or region to its codes. Segments of other labels are coded as tissue."""
