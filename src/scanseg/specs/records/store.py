"""The index of a store: preprocessed cases, and how each came from its source."""

from typing import Literal

from scanseg.specs.base import Document
from scanseg.specs.plan.dataset import DatasetSpec, Splits
from scanseg.specs.plan.preprocessing import PreprocessingSpec

Triple = tuple[int, int, int]


class CaseGeometry(Document):
    """What is needed to bring an array of the network's grid back to the source's grid."""

    num_axes: Literal[2, 3]
    """Spatial axes of the source image."""
    source_shape: tuple[int, ...]
    """Voxels of the source image (z, y, x or y, x)."""
    source_spacing: tuple[float, ...]
    """Millimetres per voxel of the source image."""
    axis_order: Triple
    """Source axis that became each axis."""
    crop_start: Triple
    """First voxel kept, along the permuted axes."""
    crop_shape: Triple
    """Voxels kept, along the permuted axes."""
    shape: Triple
    """Voxels after resampling."""


class StoredCase(Document):
    """One case of a store."""

    case: str
    geometry: CaseGeometry
    label_values: tuple[int, ...]
    """Values that occur in the preprocessed label map."""


class StoreIndex(Document):
    """All of a store but the arrays."""

    format: Literal[1] = 1
    dataset: DatasetSpec
    preprocessing: PreprocessingSpec
    splits: Splits
    cases: tuple[StoredCase, ...]
    previous: str | None = None
    """Study whose predictions are packed into the label maps (`scanseg.batches.cascade`); None: there are none."""
