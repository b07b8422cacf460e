"""Batches: positions drawn, patches gathered, augmented, shaped for the network."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.batches.augmentation import Warps, apply_intensity, draw_warps, mirror, warped_coordinates
from scanseg.batches.cascade import PredictedLabels, unpack_labels
from scanseg.batches.in_memory import Boxes, InMemoryCases
from scanseg.batches.on_disk import DiskCases
from scanseg.batches.sampling import PatchPositions, box_size, draw_positions
from scanseg.batches.shard import WHOLE_BATCH, BatchShard
from scanseg.batches.transfer import to_device
from scanseg.specs import AffineTransform, GaussianNoiseTransform, MirrorTransform, SamplingSpec, Transform

TrainingCases = InMemoryCases | DiskCases

MAX_VALUES_AT_ONCE = 4_000_000
"""Intensities of the batches that are made together; while they are made, each takes up to 200 bytes of the device."""
MAX_BATCHES_AT_ONCE = 8

_MARGIN = 2
"""Voxels read around what a warped patch reaches: its neighbours, and rounding."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Input and target of one training step; the axes are those of the patch."""

    images: Float[Tensor, "batch channel *axes"]
    label_maps: Int[Tensor, "batch *axes"]


@dataclass(frozen=True, eq=False)
class _Patches:
    """Where the patches of a batch, or of several, lie, before anything is read."""

    positions: PatchPositions
    warps: Warps | None
    """How some of them are warped; None: no transform warps."""
    in_plane: bool
    """The warps leave z alone."""
    size: tuple[int, int, int]

    def boxes(self, shapes: np.ndarray) -> Boxes:
        """Return the parts of the cases that the patches need."""
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
    """Successive batches; each follows from the number of its iteration."""

    cases: TrainingCases
    sampling: SamplingSpec
    transforms: Sequence[Transform]
    seed: int
    stream: int
    shard: BatchShard

    @property
    def share(self) -> int:
        """Patches of each batch that are made here."""
        return self.sampling.batch_size // self.shard.count

    def rngs(self, iterations: Sequence[int], *numbers: int) -> list[np.random.Generator]:
        """Return a source of randomness for each iteration, another one for other numbers."""
        return [np.random.default_rng([self.seed, self.stream, each, *numbers]) for each in iterations]

    def patches(self, iterations: Sequence[int]) -> _Patches:
        """Draw where the patches lie; of a shard, as in the whole."""
        sampling, size, here = self.sampling, box_size(self.sampling), self.shard.of(self.sampling.batch_size)
        numbers = {"seed": self.seed, "stream": self.stream}
        positions = PatchPositions.join(
            [
                draw_positions(self.cases, sampling, **numbers, iteration=each).within(here)
                for each in iterations
            ]
        )
        warps, in_plane = None, False
        for spec in self.transforms:
            if isinstance(spec, AffineTransform):
                drawn = [
                    draw_warps(spec, batch_size=sampling.batch_size, size=size, rng=rng).within(here)
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
    """Make the batch of one iteration, or a part of it; the same arguments give the same batch.

    Args:
        cases: The cases to draw from.
        sampling: How patches are drawn.
        transforms: Augmentation, in order; an affine one, if any, first. Empty: none.
        seed: Seed of the run.
        stream: Which sequence of draws, see `scanseg.batches.sampling`.
        iteration: Number of the batch in this series.
        device: Where the batch is wanted, and made.
        shard: The part; it holds the same patches, changed in the same way, as there in the whole batch.
        predicted: What becomes of the labels of a first stage that the cases hold; None: they hold none.
        following: Iterations that will be asked for next, which cases on disk are read for meanwhile; None: they
            count on.
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
    """Make the batches of several iterations in one pass; each is what `make_batch` makes of its iteration.

    A GPU is given as many launches for all of them as for one. On the CPU they are the same to the bit (on one thread:
    sums over voxels depend on the number of threads), on a GPU up to rounding.

    Args:
        cases: The cases to draw from; those on disk are read batch by batch.
        sampling: How patches are drawn.
        transforms: Augmentation, as for `make_batch`.
        seed: Seed of the run.
        stream: Which sequence of draws.
        iterations: Numbers of the batches in this series.
        device: Where the batches are wanted, and made.
        shard: The part of each.
        predicted: What becomes of the labels of a first stage.

    Returns:
        The batches; their tensors are views of common ones.
    """
    series = _Series(cases, sampling, transforms, seed, stream, shard)
    groups = [[each] for each in iterations] if isinstance(cases, DiskCases) else [list(iterations)]
    made = [_make(series, group, device=device, predicted=predicted, following=None) for group in groups]
    return [batch for batches in made for batch in batches]


def num_batches_at_once(
    cases: TrainingCases, sampling: SamplingSpec, *, device: torch.device, shard: BatchShard = WHOLE_BATCH
) -> int:
    """Return how many batches are best made together.

    On a GPU a batch of small patches is hundreds of launches that take the host longer than the GPU, so that many are
    made at once, as far as memory allows. The CPU gains nothing by it; cases on disk are read by processes that take a
    batch each, at their own pace.

    Args:
        cases: The cases to draw from.
        sampling: How patches are drawn.
        device: Where batches are made.
        shard: The part of each batch that is made here.
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
    """Make batches in one pass; of cases on disk one alone."""
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
    """Apply all transforms that do not warp."""
    for number, spec in enumerate(series.transforms):
        if isinstance(spec, AffineTransform):
            continue
        rngs = series.rngs(iterations, 3, number)
        if isinstance(spec, MirrorTransform):
            images, label_maps = mirror(images, label_maps, spec=spec, rngs=rngs, shard=series.shard)
            continue
        generators = []
        if isinstance(spec, GaussianNoiseTransform):
            seeds = [int(rng.integers(2**62)) for rng in series.rngs(iterations, 2, number)]
            generators = [torch.Generator(images.device).manual_seed(seed) for seed in seeds]
        images = apply_intensity(images, spec, rngs=rngs, generators=generators, shard=series.shard)
    return images, label_maps


def _unpack_batch(batch: Batch, iteration: int, *, series: _Series, predicted: PredictedLabels) -> Batch:
    """Make channels of the labels of a first stage in one batch."""
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
    """Cut out the patches, each straight or through its warp.

    Of cases that are held apart from the device the parts that are needed are brought there first, since warping
    takes far longer on a CPU than a step on a GPU.
    """
    cases, patches = series.cases, series.patches(iterations)
    positions, warps = patches.positions, patches.warps
    offsets: np.ndarray | None = None
    if isinstance(cases, DiskCases) or _is_apart(cases, device):
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
        # Whole numbers are taken away after the rounding to float32: the fractions are those in the whole case.
        (whole,) = to_device(offsets[warped].astype(np.float32), device=cases.device)
        coordinates = coordinates - whole[..., None, None, None]
    (where,) = to_device(warped, device=cases.device)
    new_images, new_label_maps = cases.interpolate(
        positions.cases[warped], coordinates, in_plane=patches.in_plane
    )
    return images.index_copy(0, where, new_images), label_maps.index_copy(0, where, new_label_maps)


def _is_apart(cases: InMemoryCases, device: torch.device) -> bool:
    """Whether cases are held in the memory of another kind of device."""
    return cases.device.type != device.type
