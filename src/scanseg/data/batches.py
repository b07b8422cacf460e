"""Batches: positions drawn, patches gathered, augmented, shaped for the network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.data.augmentation import Warps, apply_intensity, draw_warps, mirror, warped_coordinates
from scanseg.data.resident import ResidentCases
from scanseg.data.sampling import PatchPositions, box_size, draw_positions
from scanseg.specs import AffineTransform, MirrorTransform, SamplingSpec, Transform


@dataclass(frozen=True, eq=False)
class Batch:
    """Input and target of one training step; the axes are those of the patch."""

    images: Float[Tensor, "batch channel *axes"]
    label_maps: Int[Tensor, "batch *axes"]


def make_batch(
    cases: ResidentCases,
    sampling: SamplingSpec,
    *,
    transforms: Sequence[Transform],
    seed: int,
    stream: int,
    iteration: int,
    device: torch.device,
) -> Batch:
    """Make the batch of one iteration; the same arguments give the same batch.

    Args:
        cases: The cases to draw from.
        sampling: How patches are drawn.
        transforms: Augmentation, in order; an affine one, if any, first. Empty: none.
        seed: Seed of the run.
        stream: Which sequence of draws, see `scanseg.data.sampling`.
        iteration: Number of the batch in this sequence.
        device: Where the batch is wanted; patches are gathered where the cases are, and augmented here.
    """
    positions = draw_positions(cases, sampling, seed=seed, stream=stream, iteration=iteration)
    size = box_size(sampling)
    images, label_maps = _extract(
        cases,
        positions,
        size=size,
        transforms=transforms,
        rng=np.random.default_rng([seed, stream, iteration, 1]),
    )
    images, label_maps = images.to(device), label_maps.to(device)
    if len(sampling.patch_size) == 2:
        images, label_maps = images.squeeze(2), label_maps.squeeze(1)
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.default_rng([seed, stream, iteration, 2]).integers(2**62)))
    for number, spec in enumerate(transforms):
        rng = np.random.default_rng([seed, stream, iteration, 3, number])
        if isinstance(spec, MirrorTransform):
            images, label_maps = mirror(images, label_maps, spec=spec, rng=rng)
        elif not isinstance(spec, AffineTransform):
            images = apply_intensity(images, spec, rng=rng, generator=generator)
    return Batch(images.contiguous(), label_maps.contiguous())


def _extract(
    cases: ResidentCases,
    positions: PatchPositions,
    *,
    size: Sequence[int],
    transforms: Sequence[Transform],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Cut out the patches, each straight or through its warp."""
    index = torch.from_numpy(positions.cases).to(cases.device)
    corners = torch.from_numpy(positions.corners).to(cases.device)
    images, label_maps = cases.gather(index, corners, size)
    for spec in transforms:
        if not isinstance(spec, AffineTransform):
            continue
        warps = draw_warps(spec, batch_size=len(positions.cases), size=size, rng=rng)
        if len(warps.patches):
            images, label_maps = _replace_warped(
                cases, positions, warps, images, label_maps, in_plane=spec.in_plane or size[0] == 1
            )
    return images, label_maps


def _replace_warped(
    cases: ResidentCases,
    positions: PatchPositions,
    warps: Warps,
    images: Tensor,
    label_maps: Tensor,
    *,
    in_plane: bool,
) -> tuple[Tensor, Tensor]:
    """Read the warped patches from their cases and put them into the batch."""
    where = torch.from_numpy(warps.patches).to(cases.device)
    coordinates = warped_coordinates(
        warps, positions.corners[warps.patches], size=tuple(images.shape[2:]), device=cases.device
    )
    chosen = torch.from_numpy(positions.cases[warps.patches]).to(cases.device)
    new_images, new_label_maps = cases.interpolate(chosen, coordinates, in_plane=in_plane)
    return images.index_copy(0, where, new_images), label_maps.index_copy(0, where, new_label_maps)
