"""Features, kernels and strides of the stages of a U-Net."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scanseg.errors import InputError

MAX_FEATURES = {2: 512, 3: 320}
"""Largest default number of features, by the number of spatial axes."""
DEFAULT_STAGES = 6
"""Default number of stages. Its total stride is 32."""

PerStage = int | Sequence[int] | Sequence[Sequence[int]]
"""One number, or one for each stage, or one for each stage and axis."""


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
        strides: PerStage | None = None,
        *,
        features: Sequence[int] | None = None,
        kernel_sizes: PerStage | None = None,
        spatial_dims: int | None = None,
        patch_size: Sequence[int] | None = None,
    ) -> Self:
        """Complete the stages by default values.

        Args:
            strides: Stride of the first convolution of each stage, one number per axis or one for all axes. A single
                number is the stride of all stages but the first, which has stride 1. `None`: 2.
            features: Features of each stage. `None`: min(32 * 2^stage, 512 in 2D and 320 in 3D).
            kernel_sizes: Odd kernel size of each stage, one number per axis or one for all axes. A single number is
                the kernel size of all stages. `None`: 3.
            spatial_dims: Number of spatial axes: 2 or 3. `None`: that of the other arguments.
            patch_size: Voxels per axis of the training patch. Its axes count if no other argument has axes.

        Raises:
            InputError: The arguments are inconsistent.
        """
        num_axes = _num_axes(strides, kernel_sizes, patch_size, spatial_dims)
        sized = next((each for each in (strides, features, kernel_sizes) if isinstance(each, Sequence)), ())
        num_stages = len(sized) or DEFAULT_STAGES
        step = strides if isinstance(strides, int) else 2
        per_stage: Sequence[int | Sequence[int]] = (
            strides if isinstance(strides, Sequence) else (1, *(step,) * (num_stages - 1))
        )
        kernels: Sequence[int | Sequence[int]] = (
            kernel_sizes if isinstance(kernel_sizes, Sequence) else (kernel_sizes or 3,) * num_stages
        )
        limit = MAX_FEATURES[num_axes]
        return cls(
            features=tuple(features or (min(32 * 2**stage, limit) for stage in range(num_stages))),
            kernel_sizes=tuple(_per_axis(kernel, num_axes) for kernel in kernels),
            strides=tuple(_per_axis(stride, num_axes) for stride in per_stage),
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


def _num_axes(
    strides: PerStage | None,
    kernel_sizes: PerStage | None,
    patch_size: Sequence[int] | None,
    spatial_dims: int | None,
) -> int:
    """Return the number of spatial axes of the arguments of a network."""
    found = {} if spatial_dims is None else {"spatial_dims": spatial_dims}
    for name, stages in (("strides", strides), ("kernel_sizes", kernel_sizes)):
        axes = (
            [len(stage) for stage in stages if isinstance(stage, Sequence)]
            if isinstance(stages, Sequence)
            else []
        )
        if axes:
            found[name] = axes[0]
    if not found and patch_size is not None:
        found["patch_size"] = len(patch_size)
    counts = set(found.values())
    if len(counts) == 1 and counts <= MAX_FEATURES.keys():
        return counts.pop()
    got = ", ".join(f"{count} from {name}" for name, count in found.items()) or "no argument with axes"
    raise InputError(
        f"spatial_dims: expected 2 or 3, the same in strides and kernel_sizes, got {got}. Pass "
        "spatial_dims=2 or spatial_dims=3."
    )


def _per_axis(size: int | Sequence[int], num_axes: int) -> tuple[int, ...]:
    return (size,) * num_axes if isinstance(size, int) else tuple(size)
