"""Features, kernels and strides of the stages of a U-Net."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scanseg.errors import InputError

MAX_FEATURES = {2: 512, 3: 320}
"""Largest default number of features, by the number of spatial axes."""


@dataclass(frozen=True)
class StageShapes:
    """Features, kernel and stride of each stage, the highest resolution first.

    Attributes:
        features: Features of each stage.
        kernel_sizes: Odd kernel size of each stage, per axis.
        strides: Stride of the first convolution of each stage, per axis. The first stage has stride 1.

    Raises:
        InputError: The three are inconsistent.
    """

    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def complete(
        cls,
        strides: Sequence[Sequence[int]],
        *,
        features: Sequence[int] | None = None,
        kernel_sizes: Sequence[Sequence[int]] | None = None,
    ) -> Self:
        """Complete strides by default features and kernels.

        Args:
            strides: Stride of the first convolution of each stage, per axis. The first stage has stride 1.
            features: Features of each stage. `None`: min(32 * 2^stage, 512 in 2D and 320 in 3D).
            kernel_sizes: Odd kernel size of each stage, per axis. `None`: 3 on every axis.

        Raises:
            InputError: The three are inconsistent.
        """
        if not strides or len(strides[0]) not in MAX_FEATURES:
            raise InputError(f"strides: expected one stride of 2 or 3 axes for each stage, got {strides}.")
        limit = MAX_FEATURES[len(strides[0])]
        return cls(
            features=tuple(features or (min(32 * 2**stage, limit) for stage in range(len(strides)))),
            kernel_sizes=tuple(map(tuple, kernel_sizes or [(3,) * len(stride) for stride in strides])),
            strides=tuple(map(tuple, strides)),
        )

    def __post_init__(self) -> None:
        num_stages, num_axes = len(self.features), len(self.strides[0])
        if num_stages < 2 or len(self.kernel_sizes) != num_stages or len(self.strides) != num_stages:
            raise InputError(
                "features, kernel_sizes and strides: expected the same number of stages, at least 2, got "
                f"{num_stages}, {len(self.kernel_sizes)} and {len(self.strides)}."
            )
        if any(len(axes) != num_axes for axes in (*self.strides, *self.kernel_sizes)):
            raise InputError(
                f"strides and kernel_sizes: expected {num_axes} axes in each, got {self.strides} and "
                f"{self.kernel_sizes}."
            )
        if any(size < 1 or size % 2 == 0 for kernel in self.kernel_sizes for size in kernel):
            raise InputError(f"kernel_sizes: expected odd sizes, got {self.kernel_sizes}.")
        if set(self.strides[0]) != {1} or any(step < 1 for stride in self.strides for step in stride):
            raise InputError(f"strides: expected at least 1, and 1 in the first stage, got {self.strides}.")

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.features)

    @property
    def num_axes(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return len(self.strides[0])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides of all stages, per axis."""
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True))

    def map_sizes(self, patch_size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the size of each stage's map for a patch.

        Args:
            patch_size: Voxels per axis, divisible by the total stride.

        Returns:
            Voxels per axis for each stage.
        """
        sizes, size = [], tuple(patch_size)
        for stride in self.strides:
            size = tuple(voxels // step for voxels, step in zip(size, stride, strict=True))
            sizes.append(size)
        return tuple(sizes)
