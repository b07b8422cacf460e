"""Batches: positions drawn, patches gathered, augmented, shaped for the network."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.data.augmentation import Warps, apply_intensity, draw_warps, mirror, warped_coordinates
from scanseg.data.cascade import Predicted, take_apart
from scanseg.data.disk import DiskCases
from scanseg.data.parts import WHOLE, Part
from scanseg.data.resident import Boxes, ResidentCases
from scanseg.data.sampling import PatchPositions, box_size, draw_positions
from scanseg.specs import AffineTransform, MirrorTransform, SamplingSpec, Transform

TrainingCases = ResidentCases | DiskCases

_MARGIN = 2
"""Voxels read around what a warped patch reaches: its neighbours, and rounding."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Input and target of one training step; the axes are those of the patch."""

    images: Float[Tensor, "batch channel *axes"]
    label_maps: Int[Tensor, "batch *axes"]


@dataclass(frozen=True, eq=False)
class _Patches:
    """Where the patches of a batch lie, before anything is read."""

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


def make_batch(
    cases: TrainingCases,
    sampling: SamplingSpec,
    *,
    transforms: Sequence[Transform],
    seed: int,
    stream: int,
    iteration: int,
    device: torch.device,
    part: Part = WHOLE,
    predicted: Predicted | None = None,
    following: Iterable[int] | None = None,
) -> Batch:
    """Make the batch of one iteration, or a part of it; the same arguments give the same batch.

    Args:
        cases: The cases to draw from.
        sampling: How patches are drawn.
        transforms: Augmentation, in order; an affine one, if any, first. Empty: none.
        seed: Seed of the run.
        stream: Which sequence of draws, see `scanseg.data.sampling`.
        iteration: Number of the batch in this sequence.
        device: Where the batch is wanted, and made.
        part: The part; it holds the same patches, changed in the same way, as there in the whole batch.
        predicted: What becomes of the labels of a first stage that the cases hold; None: they hold none.
        following: Iterations that will be asked for next, which cases on disk are read for meanwhile; None: they
            count on.
    """

    def draw(number: int) -> _Patches:
        numbers = [seed, stream, number]
        return _draw_patches(cases, sampling, numbers=numbers, transforms=transforms, part=part)

    images, label_maps = _read_patches(cases, iteration, draw, device=device, following=following)
    images, label_maps = images.to(device), label_maps.to(device)
    if len(sampling.patch_size) == 2:
        images, label_maps = images.squeeze(2), label_maps.squeeze(1)
    for number, spec in enumerate(transforms):
        rng = np.random.default_rng([seed, stream, iteration, 3, number])
        if isinstance(spec, MirrorTransform):
            images, label_maps = mirror(images, label_maps, spec=spec, rng=rng, part=part)
        elif not isinstance(spec, AffineTransform):
            noise_seed = np.random.default_rng([seed, stream, iteration, 2, number]).integers(2**62)
            generator = torch.Generator(device).manual_seed(int(noise_seed))
            images = apply_intensity(images, spec, rng=rng, generator=generator, part=part)
    if predicted is not None:
        numbers = [seed, stream, iteration, 4] if transforms else None
        first = part.of(sampling.batch_size).start
        images, label_maps = take_apart(images, label_maps, predicted, numbers=numbers, first=first)
    return Batch(images.contiguous(), label_maps.contiguous())


def _draw_patches(
    cases: TrainingCases,
    sampling: SamplingSpec,
    *,
    numbers: list[int],
    transforms: Sequence[Transform],
    part: Part,
) -> _Patches:
    """Draw where the patches of a batch lie; of a part, as in the whole."""
    seed, stream, iteration = numbers
    positions = draw_positions(cases, sampling, seed=seed, stream=stream, iteration=iteration)
    size, here = box_size(sampling), part.of(sampling.batch_size)
    warps, in_plane = None, False
    for spec in transforms:
        if isinstance(spec, AffineTransform):
            rng = np.random.default_rng([*numbers, 1])
            drawn = draw_warps(spec, batch_size=sampling.batch_size, size=size, rng=rng)
            warps, in_plane = drawn.within(here), spec.in_plane or size[0] == 1
    return _Patches(positions.within(here), warps, in_plane, size)


def _read_patches(
    cases: TrainingCases,
    iteration: int,
    draw: Callable[[int], _Patches],
    *,
    device: torch.device,
    following: Iterable[int] | None,
) -> tuple[Tensor, Tensor]:
    """Cut out the patches, each straight or through its warp.

    Of cases that are held apart from the device the parts that are needed are brought there first, since warping
    takes far longer on a CPU than a step on a GPU.
    """
    patches = draw(iteration)
    positions, warps = patches.positions, patches.warps
    offsets = np.zeros_like(positions.corners)
    if isinstance(cases, DiskCases) or _is_apart(cases, device):
        shapes = cases.shapes_host
        boxes = patches.boxes(shapes)
        offsets = boxes.low
        if isinstance(cases, DiskCases):
            cases = cases.fetch(iteration, lambda number: draw(number).boxes(shapes), following=following)
        else:
            cases = cases.cut(boxes, device=device)
        positions = PatchPositions(np.arange(len(offsets)), positions.corners)
    index = torch.from_numpy(positions.cases).to(cases.device)
    corners = torch.from_numpy(positions.corners - offsets).to(cases.device)
    images, label_maps = cases.gather(index, corners, patches.size)
    if warps is None or not len(warps.patches):
        return images, label_maps
    where = torch.from_numpy(warps.patches).to(cases.device)
    coordinates = warped_coordinates(
        warps, positions.corners[warps.patches], size=patches.size, device=cases.device
    )
    # Whole numbers are taken away after the rounding to float32, so that the fractions are those in the whole case.
    coordinates = (
        coordinates - torch.from_numpy(offsets[warps.patches]).to(coordinates)[..., None, None, None]
    )
    new_images, new_label_maps = cases.interpolate(index[where], coordinates, in_plane=patches.in_plane)
    return images.index_copy(0, where, new_images), label_maps.index_copy(0, where, new_label_maps)


def _is_apart(cases: ResidentCases, device: torch.device) -> bool:
    """Whether cases are held in the memory of another kind of device."""
    return cases.device.type != device.type
