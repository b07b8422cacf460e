"""The shape of a U-Net: features, kernel and stride of each stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scanseg.errors import InputError

MAX_FEATURES = {2: 512, 3: 320}


@dataclass(frozen=True)
class StageShapes:
    """Features, kernel and stride of each stage, the highest resolution first.

    Attributes:
        features: Features of each stage.
        kernel_sizes: Kernel of each stage per axis, odd.
        strides: Stride with which each stage begins, per axis; that of the first is 1.
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
        """Fill in the usual features, min(32 * 2^stage, 512 in 2D and 320 in 3D), and kernels of 3.

        Args:
            strides: Stride with which each stage begins, per axis; that of the first is 1.
            features: Features of each stage; None: the usual.
            kernel_sizes: Kernel of each stage per axis; None: the usual.

        Raises:
            InputError: The three do not describe the same stages.
        """
        if not strides or len(strides[0]) not in MAX_FEATURES:
            raise InputError(f"strides {strides} must hold one stride of 2 or 3 axes for each stage.")
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
                f"features, kernel_sizes and strides describe {num_stages}, {len(self.kernel_sizes)} and "
                f"{len(self.strides)} stages; they must describe the same number, at least 2."
            )
        if any(len(axes) != num_axes for axes in (*self.strides, *self.kernel_sizes)):
            raise InputError(
                f"strides {self.strides} and kernel_sizes {self.kernel_sizes} must all have {num_axes} axes."
            )
        if any(size < 1 or size % 2 == 0 for kernel in self.kernel_sizes for size in kernel):
            raise InputError(f"kernel_sizes {self.kernel_sizes} must be odd.")
        if set(self.strides[0]) != {1} or any(step < 1 for stride in self.strides for step in stride):
            raise InputError(f"strides {self.strides} must be at least 1, and 1 in the first stage.")

    @property
    def num_stages(self) -> int:
        """Resolutions, the highest included."""
        return len(self.features)

    @property
    def num_axes(self) -> int:
        """2 or 3 spatial axes."""
        return len(self.strides[0])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides of all stages, per axis."""
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True))

    def map_sizes(self, patch_size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the size of each stage's map for a patch.

        Args:
            patch_size: Voxels per axis, divisible by the total stride.
        """
        sizes, size = [], tuple(patch_size)
        for stride in self.strides:
            size = tuple(voxels // step for voxels, step in zip(size, stride, strict=True))
            sizes.append(size)
        return tuple(sizes)
