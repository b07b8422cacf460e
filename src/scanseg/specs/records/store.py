"""The index of a store: preprocessed cases and their source geometry."""

import math
from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scanseg.sizes import MOST_VOXELS
from scanseg.specs.base import CaseName, Document, RenamedFields
from scanseg.specs.plan.dataset import DatasetSpec, Splits
from scanseg.specs.plan.preprocessing import PreprocessingSpec

Triple = tuple[int, int, int]
PositiveTriple = tuple[PositiveInt, PositiveInt, PositiveInt]


class CaseGeometry(Document):
    """Geometry for resampling from the network's grid to the source grid."""

    num_axes: Literal[2, 3]
    """Number of spatial axes of the source image."""
    source_shape: tuple[PositiveInt, ...]
    """Voxels of the source image along z, y, x or y, x."""
    source_spacing: tuple[PositiveFloat, ...]
    """Millimetres per voxel of the source image along z, y, x or y, x."""
    axis_order: Triple
    """Source axes that become z, y and x."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """Permuted axes that are reversed, which brings the case to the plan's orientation."""
    crop_start: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
    """First voxel of the crop, along the permuted axes."""
    crop_shape: PositiveTriple
    """Voxels of the crop, along the permuted axes."""
    shape: PositiveTriple
    """Voxels after resampling, along the permuted axes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.source_shape) != self.num_axes or len(self.source_spacing) != self.num_axes:
            raise ValueError(
                f"source_shape and source_spacing: expected {self.num_axes} axes, got {self.source_shape} and "
                f"{self.source_spacing}"
            )
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(f"axis_order: expected a permutation of (0, 1, 2), got {self.axis_order}")
        lifted = (1,) * (3 - self.num_axes) + self.source_shape
        permuted = tuple(lifted[axis] for axis in self.axis_order)
        ends = [start + size for start, size in zip(self.crop_start, self.crop_shape, strict=True)]
        if any(end > size for end, size in zip(ends, permuted, strict=True)):
            raise ValueError(
                f"crop_start and crop_shape: expected a part of {permuted} voxels, got {self.crop_shape} from "
                f"{self.crop_start}"
            )
        for name, shape in (("source_shape", self.source_shape), ("shape", self.shape)):
            if math.prod(shape) > MOST_VOXELS:
                raise ValueError(f"{name}: expected at most {MOST_VOXELS:.2g} voxels, got {shape}")
        return self


class StoredCase(Document):
    """One case of a store."""

    case: CaseName
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
