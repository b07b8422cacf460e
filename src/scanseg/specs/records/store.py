"""The index of a store: preprocessed cases and their source geometry."""

from typing import Literal

from scanseg.specs.base import Document, RenamedFields
from scanseg.specs.plan.dataset import DatasetSpec, Splits
from scanseg.specs.plan.preprocessing import PreprocessingSpec

Triple = tuple[int, int, int]


class CaseGeometry(Document):
    """Geometry for resampling from the network's grid to the source grid."""

    num_axes: Literal[2, 3]
    """Number of spatial axes of the source image."""
    source_shape: tuple[int, ...]
    """Voxels of the source image along z, y, x or y, x."""
    source_spacing: tuple[float, ...]
    """Millimetres per voxel of the source image along z, y, x or y, x."""
    axis_order: Triple
    """Source axes that become z, y and x."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """Permuted axes that are reversed, which brings the case to the plan's orientation."""
    crop_start: Triple
    """First voxel of the crop, along the permuted axes."""
    crop_shape: Triple
    """Voxels of the crop, along the permuted axes."""
    shape: Triple
    """Voxels after resampling, along the permuted axes."""


class StoredCase(Document):
    """One case of a store."""

    case: str
    """Name of the case."""
    geometry: CaseGeometry
    """Geometry of the source and of each preprocessing step."""
    label_values: tuple[int, ...]
    """Label values in the preprocessed label map."""


class StoreIndex(RenamedFields):
    """Content of a store except for the arrays."""

    format: Literal[1] = 1
    """Version of the file format."""
    dataset: DatasetSpec
    """Description of the data set."""
    preprocessing: PreprocessingSpec
    """Preprocessing of the cases."""
    splits: Splits
    """Folds of the data set."""
    cases: tuple[StoredCase, ...]
    """The cases."""
    first_stage: str | None = None
    """Cross-validation folder of the first stage of a cascade. `None`: no cascade.

    Its predictions are packed into the label maps (`scanseg.batches.cascade`).
    """
