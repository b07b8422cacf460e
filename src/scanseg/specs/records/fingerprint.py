"""What was measured on a data set, and all that planning sees of it."""

from scanseg.specs.base import Document


class IntensityStatistics(Document):
    """Intensities of one channel over the foreground voxels of all cases."""

    mean: float
    median: float
    standard_deviation: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class CaseMeasures(Document):
    """Size of one case."""

    case: str
    spacing: tuple[float, float, float]
    """Millimetres per voxel along z, y, x; (999, 1, 1) for an image of two axes, as nnU-Net has it."""
    shape: tuple[int, int, int]
    """Voxels along z, y, x after cropping to the non-zero part; (1, y, x) for an image of two axes."""
    source_shape: tuple[int, int, int]
    """Voxels before cropping."""


class Fingerprint(Document):
    """Measures of a data set."""

    num_axes: int
    """Spatial axes of the source images: 2 or 3."""
    cases: tuple[CaseMeasures, ...]
    intensities: tuple[IntensityStatistics, ...]
    """One for each channel."""
    median_relative_size_after_crop: float
    """Median over cases of the part of the voxels that cropping keeps."""
