"""Measurements of a data set: the input of planning."""

from scanseg.specs.base import Document
from scanseg.specs.records.intensities import IntensityRange


class IntensityStatistics(Document):
    """Intensities of one channel over the foreground voxels of all cases."""

    mean: float
    """Mean, in the units of the images (Hounsfield units for CT)."""
    median: float
    """Median, in the units of the images."""
    standard_deviation: float
    """Standard deviation, in the units of the images."""
    minimum: float
    """Minimum, in the units of the images."""
    maximum: float
    """Maximum, in the units of the images."""
    percentile_00_5: float
    """0.5th percentile, in the units of the images."""
    percentile_99_5: float
    """99.5th percentile, in the units of the images."""


class CaseMeasures(Document):
    """Shape and spacing of one case."""

    case: str
    """Name of the case."""
    spacing: tuple[float, float, float]
    """Millimetres per voxel along z, y, x. (999, 1, 1) for a 2D image, as in nnU-Net."""
    shape: tuple[int, int, int]
    """Voxels along z, y, x after cropping to the nonzero box. (1, y, x) for a 2D image."""
    source_shape: tuple[int, int, int]
    """Voxels along z, y, x before cropping."""
    orientation: str | None = None
    """Axis codes of x, y, z as stored, such as `RAS`. `None`: a 2D image. The axes of the other fields are those of the
    fingerprint's orientation."""


class Fingerprint(Document):
    """Measurements of a data set."""

    num_axes: int
    """Number of spatial axes of the source images: 2 or 3."""
    cases: tuple[CaseMeasures, ...]
    """Shape and spacing of every case."""
    intensities: tuple[IntensityStatistics, ...]
    """Foreground intensities of each channel."""
    intensity_ranges: tuple[IntensityRange, ...] = ()
    """Range of each channel over all voxels of all cases. Empty: not measured."""
    mirror_likeness: tuple[float, float, float] | None = None
    """Soft Dice of the mean label map and its mirror image along z, y, x, of the least alike label.

    `None`: not measured.
    """
    median_relative_size_after_crop: float
    """Median over cases of the fraction of voxels that remain after cropping."""
    orientation: str | None = None
    """Most frequent orientation of the cases, as axis codes of x, y, z. `None`: 2D images."""
