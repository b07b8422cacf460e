"""Batches: drawn positions, gathered patches, augmentation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.batches.augmentation import (
    Warps,
    apply_intensity,
    change_colours,
    draw_warps,
    mirror,
    warped_coordinates,
)
from scanseg.batches.cascade import PredictedLabels, unpack_labels
from scanseg.batches.in_memory import Boxes, InMemoryCases
from scanseg.batches.on_disk import DiskCases
from scanseg.batches.sampling import PatchPositions, box_size, draw_positions
from scanseg.batches.shard import WHOLE_BATCH, BatchShard
from scanseg.batches.transfer import to_device
from scanseg.specs import (
    AffineTransform,
    ColourTransform,
    GaussianNoiseTransform,
    MirrorTransform,
    SamplingSpec,
    Transform,
)

TrainingCases = InMemoryCases | DiskCases
"""Cases that batches are drawn from."""

MAX_VALUES_AT_ONCE = 4_000_000
"""Maximum number of intensities of batches made together. Each needs up to 200 bytes on the device meanwhile."""
MAX_BATCHES_AT_ONCE = 8
"""Maximum number of batches made together."""

_MARGIN = 2
"""Voxels read around the reach of a warped patch, for neighbours and rounding."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Input and target of one training step."""

    images: Float[Tensor, "batch channel *axes"]
    """Input, with the axes of the patch."""
    label_maps: Int[Tensor, "batch *axes"]
    """Target label maps."""


@dataclass(frozen=True, eq=False)
class _Patches:
    """Positions and warps of the patches of one or more batches."""

    positions: PatchPositions
    """Cases and first voxels."""
    warps: Warps | None
    """Warps of some patches. `None`: no transform warps."""
    in_plane: bool
    """The warps do not change z."""
    size: tuple[int, int, int]
    """Voxels of a patch along z, y, x."""

    def boxes(self, shapes: np.ndarray) -> Boxes:
        """Return the boxes of the cases that the patches need.

        Args:
            shapes: Voxels of each case along z, y, x, (case, 3).
        """
        low, high = self.positions.corners.copy(), self.positions.corners + np.array(self.size)
        if self.warps is not None and len(self.warps.patches):
            warped = self.warps.patches
            lowest, highest = self.warps.reach(self.positions.corners[warped], size=self.size)
            low[warped] = np.floor(lowest).astype(np.int64) - _MARGIN
            high[warped] = np.ceil(highest).astype(np.int64) + _MARGIN + 1
        limits = shapes[self.positions.cases]
        low = np.clip(low, 0, limits - 1)
        return Boxes(self.positions.cases, low, np.clip(high, low + 1, limits))


@dataclass(frozen=True, eq=False)
class _Series:
    """Settings from which the batch of every iteration follows."""

    cases: TrainingCases
    """Cases to draw from."""
    sampling: SamplingSpec
    """Patch size, batch size and order of draws."""
    transforms: Sequence[Transform]
    """Augmentation in order."""
    seed: int
    """Seed of the training."""
    stream: int
    """Stream of random draws."""
    shard: BatchShard
    """Shard of each batch."""

    @property
    def share(self) -> int:
        """Number of patches of the shard."""
        return self.sampling.batch_size // self.shard.count

    def rngs(self, iterations: Sequence[int], *numbers: int) -> list[np.random.Generator]:
        """Return a random generator per iteration.

        Args:
            iterations: Numbers of the iterations.
            numbers: Further numbers of the seed, which separate different uses.
        """
        return [np.random.default_rng([self.seed, self.stream, each, *numbers]) for each in iterations]

    def patches(self, iterations: Sequence[int]) -> _Patches:
        """Draw the patches of the shard as in the whole batch.

        Args:
            iterations: Numbers of the batches.
        """
        sampling, size, part = self.sampling, box_size(self.sampling), self.shard.of(self.sampling.batch_size)
        numbers = {"seed": self.seed, "stream": self.stream}
        positions = PatchPositions.join(
            [
                draw_positions(self.cases, sampling, **numbers, iteration=each).within(part)
                for each in iterations
            ]
        )
        warps, in_plane = None, False
        for spec in self.transforms:
            if isinstance(spec, AffineTransform):
                drawn = [
                    draw_warps(spec, batch_size=sampling.batch_size, size=size, rng=rng).within(part)
                    for rng in self.rngs(iterations, 1)
                ]
                warps, in_plane = Warps.join(drawn, batch_size=self.share), spec.in_plane or size[0] == 1
        return _Patches(positions, warps, in_plane, size)


def make_batch(
    cases: TrainingCases,
    sampling: SamplingSpec,
    *,
    transforms: Sequence[Transform],
    seed: int,
    stream: int,
    iteration: int,
    device: torch.device,
    shard: BatchShard = WHOLE_BATCH,
    predicted: PredictedLabels | None = None,
    following: Iterable[int] | None = None,
) -> Batch:
    """Make the batch of one iteration, or a shard of it.

    Equal arguments give equal batches.

    Args:
        cases: Cases to draw from.
        sampling: Patch size, batch size and order of draws.
        transforms: Augmentation in order. An affine transform must be the first. Empty: none.
        seed: Seed of the training.
        stream: Stream of random draws, see `scanseg.batches.sampling`.
        iteration: Number of the batch in this stream.
        device: Device on which the batch is made.
        shard: Shard of the batch. Its patches and their augmentation equal those in the whole batch.
        predicted: Settings of the first-stage labels. `None`: the cases have none.
        following: Iterations of the next batches, which cases on disk read ahead. `None`: the numbers after
            `iteration`.
    """
    series = _Series(cases, sampling, transforms, seed, stream, shard)
    return _make(series, [iteration], device=device, predicted=predicted, following=following)[0]


def make_batches(
    cases: TrainingCases,
    sampling: SamplingSpec,
    *,
    transforms: Sequence[Transform],
    seed: int,
    stream: int,
    iterations: Sequence[int],
    device: torch.device,
    shard: BatchShard = WHOLE_BATCH,
    predicted: PredictedLabels | None = None,
) -> list[Batch]:
    """Make the batches of several iterations in one pass.

    Each batch equals that of `make_batch`. A GPU gets about as many launches for all batches as for one. On the CPU the
    results are bit-identical with one thread (sums over voxels depend on the number of threads). On a GPU they agree up
    to rounding.

    Args:
        cases: Cases to draw from. Cases on disk are read batch by batch.
        sampling: Patch size, batch size and order of draws.
        transforms: Augmentation, as for `make_batch`.
        seed: Seed of the training.
        stream: Stream of random draws.
        iterations: Numbers of the batches in this stream.
        device: Device on which the batches are made.
        shard: Shard of each batch.
        predicted: Settings of the first-stage labels. `None`: the cases have none.

    Returns:
        The batches. Their tensors are views of shared tensors.
    """
    series = _Series(cases, sampling, transforms, seed, stream, shard)
    groups = [[each] for each in iterations] if isinstance(cases, DiskCases) else [list(iterations)]
    made = [_make(series, group, device=device, predicted=predicted, following=None) for group in groups]
    return [batch for batches in made for batch in batches]


def num_batches_at_once(
    cases: TrainingCases, sampling: SamplingSpec, *, device: torch.device, shard: BatchShard = WHOLE_BATCH
) -> int:
    """Return the best number of batches to make together.

    On a GPU a batch of small patches needs hundreds of launches, which take the host longer than the GPU. So several
    batches are made at once, as far as memory allows. A CPU gains nothing by it. For cases on disk, each worker process
    reads one batch at a time.

    Args:
        cases: Cases to draw from.
        sampling: Patch size and batch size.
        device: Device on which batches are made.
        shard: Shard of each batch.
    """
    if device.type != "cuda" or isinstance(cases, DiskCases):
        return 1
    values = sampling.batch_size // shard.count * math.prod(sampling.patch_size) * len(cases.background_value)
    return max(1, min(MAX_BATCHES_AT_ONCE, MAX_VALUES_AT_ONCE // values))


def _make(
    series: _Series,
    iterations: Sequence[int],
    *,
    device: torch.device,
    predicted: PredictedLabels | None,
    following: Iterable[int] | None,
) -> list[Batch]:
    """Make batches in one pass. Cases on disk allow one iteration only."""
    images, label_maps = _read_patches(series, iterations, device=device, following=following)
    images, label_maps = images.to(device), label_maps.to(device)
    if len(series.sampling.patch_size) == 2:
        images, label_maps = images.squeeze(2), label_maps.squeeze(1)
    images, label_maps = _augment(images, label_maps, series, iterations)
    parts = zip(
        images.contiguous().split(series.share), label_maps.contiguous().split(series.share), strict=True
    )
    batches = [Batch(*each) for each in parts]
    if predicted is None:
        return batches
    return [
        _unpack_batch(batch, iteration, series=series, predicted=predicted)
        for iteration, batch in zip(iterations, batches, strict=True)
    ]


def _augment(
    images: Tensor, label_maps: Tensor, series: _Series, iterations: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Apply all transforms except the affine one."""
    for number, spec in enumerate(series.transforms):
        if isinstance(spec, AffineTransform):
            continue
        rngs = series.rngs(iterations, 3, number)
        if isinstance(spec, MirrorTransform):
            images, label_maps = mirror(images, label_maps, spec=spec, rngs=rngs, shard=series.shard)
            continue
        if isinstance(spec, ColourTransform):
            images = change_colours(images, spec=spec, rngs=rngs, shard=series.shard)
            continue
        generators = []
        if isinstance(spec, GaussianNoiseTransform):
            seeds = [int(rng.integers(2**62)) for rng in series.rngs(iterations, 2, number)]
            generators = [torch.Generator(images.device).manual_seed(seed) for seed in seeds]
        images = apply_intensity(images, spec, rngs=rngs, generators=generators, shard=series.shard)
    return images, label_maps


def _unpack_batch(batch: Batch, iteration: int, *, series: _Series, predicted: PredictedLabels) -> Batch:
    """Unpack the label maps of one batch."""
    numbers = [series.seed, series.stream, iteration, 4] if series.transforms else None
    first = series.shard.of(series.sampling.batch_size).start
    images, label_maps = unpack_labels(
        batch.images, batch.label_maps, predicted, numbers=numbers, first=first
    )
    return Batch(images.contiguous(), label_maps.contiguous())


def _read_patches(
    series: _Series,
    iterations: Sequence[int],
    *,
    device: torch.device,
    following: Iterable[int] | None,
) -> tuple[Tensor, Tensor]:
    """Read the patches, and warp some of them.

    If the cases are not on the device, the required boxes are copied there first. Warping on a CPU would take far
    longer than a step on a GPU.
    """
    cases, patches = series.cases, series.patches(iterations)
    positions, warps = patches.positions, patches.warps
    offsets: np.ndarray | None = None
    if isinstance(cases, DiskCases) or _is_on_another_device(cases, device):
        shapes = cases.shapes_host
        boxes = patches.boxes(shapes)
        offsets = boxes.low
        if isinstance(cases, DiskCases):
            cases = cases.fetch(
                iterations[0], lambda number: series.patches([number]).boxes(shapes), following=following
            )
        else:
            cases = cases.cut(boxes, device=device)
        positions = replace(positions, cases=np.arange(len(offsets)))
    corners = positions.corners if offsets is None else positions.corners - offsets
    images, label_maps = cases.gather(positions.cases, corners, patches.size)
    if warps is None or not len(warps.patches):
        return images, label_maps
    warped = warps.patches
    coordinates = warped_coordinates(warps, positions.corners[warped], size=patches.size, device=cases.device)
    if offsets is not None:
        # Integer offsets are subtracted after rounding to float32, so fractions equal those in the whole case.
        (whole,) = to_device(offsets[warped].astype(np.float32), device=cases.device)
        coordinates = coordinates - whole[..., None, None, None]
    (where,) = to_device(warped, device=cases.device)
    new_images, new_label_maps = cases.interpolate(
        positions.cases[warped], coordinates, in_plane=patches.in_plane
    )
    return images.index_copy(0, where, new_images), label_maps.index_copy(0, where, new_label_maps)


def _is_on_another_device(cases: InMemoryCases, device: torch.device) -> bool:
    """Return whether cases are in the memory of another type of device."""
    return cases.device.type != device.type
