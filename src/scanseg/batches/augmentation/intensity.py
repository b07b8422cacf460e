"""Changes of intensities.

Each changes some channels of some patches. Choice and parameters are drawn on the host.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scanseg.batches.shard import WHOLE_BATCH, BatchShard
from scanseg.batches.transfer import to_device
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ColourTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    MirrorTransform,
    Transform,
)

Images = Float[Tensor, "batch channel *axes"]
"""Patches with all channels."""
Rows = Float[Tensor, "row *axes"]
"""Single channels of patches, which are changed independently."""

_TRUNCATE = 4.0
"""Radius of a Gaussian kernel in standard deviations."""


@dataclass(frozen=True, eq=False)
class _Draws:
    """Random draws for the changed patches of several batches.

    Draws are made for all patches of a batch, also those of other shards. So a shard equals its part of the whole
    batch.
    """

    rngs: Sequence[np.random.Generator]
    """Source of randomness of each batch."""
    in_shard: Sequence[np.ndarray]
    """For each batch, whether each changed patch belongs to the shard, (changed,)."""
    num_channels: int
    """Channels of a patch."""

    def uniform(self, bounds: tuple[float, float], *, num_channels: int | None = None) -> np.ndarray:
        """Draw a uniform number for each channel of each patch."""
        return self._each(lambda rng, size: rng.uniform(*bounds, size=size), num_channels)

    def factor(self, bounds: tuple[float, float]) -> np.ndarray:
        """Draw a factor for each channel of each patch.

        If 1 lies inside the bounds, factors below and above 1 are equally likely.
        """
        low, high = bounds
        if not low < 1 < high:
            return self.uniform(bounds)

        def draw(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
            below = rng.random(size) < 0.5
            return np.where(below, rng.uniform(low, 1, size=size), rng.uniform(1, high, size=size))

        return self._each(draw)

    def chosen(self, probability: float) -> np.ndarray:
        """Draw whether each channel of each patch is changed."""
        return self._each(lambda rng, size: rng.random(size) < probability)

    def noise(
        self, size: Sequence[int], generators: Sequence[torch.Generator], *, device: torch.device
    ) -> Float[Tensor, "row *axes"]:
        """Draw normal noise for each channel of each patch in the shard.

        Args:
            size: Voxels of a patch along its axes.
            generators: Source of noise of each batch.
            device: Device of the noise.
        """
        changed = [len(each) if each.any() else 0 for each in self.in_shard]
        noise = torch.empty((sum(changed), self.num_channels, *size), device=device)
        for drawn, generator in zip(noise.split(changed), generators, strict=True):
            drawn.normal_(generator=generator)
        in_shard = np.concatenate([each for each in self.in_shard if each.any()])
        if not in_shard.all():
            noise = noise[to_device(np.flatnonzero(in_shard), device=device)[0]]
        return noise.flatten(0, 1)

    def _each(
        self,
        draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray],
        num_channels: int | None = None,
    ) -> np.ndarray:
        """Draw for every batch, and return the shard, (patch, channel)."""
        channels = num_channels or self.num_channels
        return np.concatenate(
            [
                draw(rng, (len(each), channels))[each]
                for rng, each in zip(self.rngs, self.in_shard, strict=True)
            ]
        )


def apply_intensity(
    images: Images,
    spec: Transform,
    *,
    rngs: Sequence[np.random.Generator],
    generators: Sequence[torch.Generator] = (),
    shard: BatchShard = WHOLE_BATCH,
) -> Images:
    """Apply one intensity transform to one or more batches.

    Args:
        images: Patches of the batches in order. They are not changed in place.
        spec: The transform.
        rngs: Source of randomness of each batch, for the choice of patches and the parameters.
        generators: Source of noise of each batch, on the device of the patches. Only for `GaussianNoiseTransform`.
        shard: Shard of each batch. The result equals its part of the whole batch.

    Returns:
        The transformed patches.
    """
    share = len(images) // len(rngs)
    patches = [np.flatnonzero(rng.random(share * shard.count) < spec.probability) for rng in rngs]
    first = shard.of(share * shard.count).start
    in_shard = [(first <= changed) & (changed < first + share) for changed in patches]
    where = np.concatenate(
        [number * share + patches[number][in_shard[number]] - first for number in range(len(rngs))]
    )
    if not len(where):
        return images
    draws = _Draws(rngs, in_shard, num_channels=images.shape[1])
    chosen, values = _draw(spec, draws, num_axes=images.ndim - 2)
    rows = (where[:, None] * images.shape[1] + np.arange(images.shape[1]))[chosen]
    values = values[chosen]
    if not len(rows):
        return images
    index, *numbers = to_device(rows, *_numbers_for_device(spec, values), device=images.device)
    flat = images.flatten(0, 1)
    before = flat[index]
    if isinstance(spec, GaussianNoiseTransform):
        noise = draws.noise(images.shape[2:], generators, device=images.device)
        after = before + noise * _spread(numbers[0], before)
    else:
        after = _change(before, spec, values, numbers)
    return flat.index_copy(0, index, after).unflatten(0, images.shape[:2])


def _draw(spec: Transform, draws: _Draws, *, num_axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the channels of changed patches to transform, and the parameters.

    Returns:
        Whether each channel is changed, (patch, channel), and its parameters, (patch, channel, *).
    """
    match spec:
        case GaussianNoiseTransform():
            deviations = draws.uniform(spec.deviation_range, num_channels=1)
            values = np.repeat(deviations, draws.num_channels, axis=1)
        case GaussianBlurTransform():
            chosen = draws.chosen(spec.channel_probability)
            sigmas = [draws.uniform(spec.sigma_range) for _ in range(num_axes)]
            return chosen, np.maximum(np.stack(sigmas, axis=-1), 1e-3)
        case BrightnessTransform() | ContrastTransform():
            values = draws.factor(spec.factor_range)
        case LowResolutionTransform():
            return draws.chosen(spec.channel_probability), draws.uniform(spec.zoom_range)
        case GammaTransform():
            values = draws.factor(spec.gamma_range)
        case AffineTransform() | ColourTransform() | MirrorTransform():
            raise TypeError(f"transform: expected a change of intensities, got {spec.kind}")
    return np.ones(values.shape, dtype=bool), values


def _numbers_for_device(spec: Transform, values: np.ndarray) -> list[np.ndarray]:
    """Return the arrays that the device needs for the parameters of rows."""
    match spec:
        case GaussianBlurTransform():
            return gaussian_weights(values)
        case LowResolutionTransform():
            return []
        case _:
            return [values.astype(np.float32)]


def _change(rows: Rows, spec: Transform, values: np.ndarray, numbers: Sequence[Tensor]) -> Rows:
    """Apply a transform to all rows."""
    match spec:
        case GaussianBlurTransform():
            return convolve(rows, numbers)
        case BrightnessTransform():
            return rows * _spread(numbers[0], rows)
        case ContrastTransform():
            return stretch(rows, numbers[0])
        case LowResolutionTransform():
            return lower_resolution(rows, values, in_plane=spec.in_plane)
        case GammaTransform():
            return -raise_to_gamma(-rows, numbers[0]) if spec.inverted else raise_to_gamma(rows, numbers[0])
        case _:
            raise TypeError(f"transform: expected a change of single channels, got {spec.kind}")


def _spread(values: Float[Tensor, " row"], rows: Rows) -> Tensor:
    """Reshape one value per row so that it broadcasts over the row."""
    return values.view(-1, *(1,) * (rows.ndim - 1))


def gaussian_weights(sigmas: np.ndarray) -> list[np.ndarray]:
    """Return the weights of Gaussian kernels.

    The radius of each kernel depends only on its own standard deviation, so rows do not depend on each other.

    Args:
        sigmas: Standard deviations in voxels along each axis, (row, axis).

    Returns:
        Weights of each axis, (row, tap), float32.
    """
    weights = []
    for deviations in sigmas.T[..., None]:
        radius = max(1, math.ceil(_TRUNCATE * float(deviations.max())))
        taps = np.arange(-radius, radius + 1)
        values = np.exp(-0.5 * (taps / deviations) ** 2)
        values *= np.abs(taps) <= np.maximum(1, np.ceil(_TRUNCATE * deviations))
        # The cumulative sum adds in order, so zeros beyond the radius change no bit.
        weights.append((values / np.cumsum(values, axis=-1)[:, -1:]).astype(np.float32))
    return weights


def convolve(rows: Rows, weights: Sequence[Float[Tensor, "row tap"]]) -> Rows:
    """Convolve rows along every axis, with repeated borders.

    Args:
        rows: Channels of patches.
        weights: Kernels of the rows for each axis, with an odd number of taps.
    """
    for axis, kernel in enumerate(weights, start=1):
        if rows.shape[axis] > 1:
            rows = _convolve_axis(rows, kernel, axis)
    return rows


def _convolve_axis(rows: Rows, kernel: Float[Tensor, "row tap"], axis: int) -> Rows:
    """Convolve along one axis."""
    num_taps, num_axes = kernel.shape[1], rows.ndim - 1
    margins = [0] * (2 * num_axes)  # the last axis comes first
    begin = 2 * (num_axes - axis)
    margins[begin : begin + 2] = [num_taps // 2] * 2
    padded = F.pad(rows[None], margins, mode="replicate")[0]
    parts = (
        padded.narrow(axis, tap, rows.shape[axis]) * _spread(kernel[:, tap], rows) for tap in range(num_taps)
    )
    return reduce(add, parts)


def stretch(rows: Rows, factors: Float[Tensor, " row"]) -> Rows:
    """Scale the contrast of rows about their mean, within their range.

    Args:
        rows: Channels of patches.
        factors: Factor of each row.
    """
    mean = _spread(rows.flatten(1).mean(1), rows)
    low, high = _extremes(rows)
    return ((rows - mean) * _spread(factors, rows) + mean).clamp(low, high)


def _extremes(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of each row, to broadcast over it."""
    low, high = rows.flatten(1).aminmax(dim=1)
    return _spread(low, rows), _spread(high, rows)


def lower_resolution(rows: Rows, zooms: np.ndarray, *, in_plane: bool = False) -> Rows:
    """Sample each row down by nearest neighbour and up again linearly.

    Args:
        rows: Channels of patches.
        zooms: Fraction of voxels along each axis that remain, (row,).
        in_plane: Keep all voxels along the first of three axes.
    """
    size = rows.shape[1:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    changed = []
    for row, zoom in zip(rows, zooms, strict=True):
        small = F.interpolate(
            row[None, None], size=_zoomed(size, float(zoom), in_plane=in_plane), mode="nearest-exact"
        )
        changed.append(F.interpolate(small, size=size, mode=mode, align_corners=False)[0, 0])
    return torch.stack(changed)


def _zoomed(size: Sequence[int], zoom: float, *, in_plane: bool) -> list[int]:
    """Return a smaller size with at least one voxel along each axis."""
    smaller = [max(1, round(voxels * zoom)) for voxels in size]
    return [size[0], *smaller[1:]] if in_plane and len(size) == 3 else smaller


def raise_to_gamma(rows: Rows, gammas: Float[Tensor, " row"]) -> Rows:
    """Raise intensities to a power, and keep mean and standard deviation.

    Each row is scaled to [0, 1] before.

    Args:
        rows: Channels of patches.
        gammas: Exponent of each row.
    """
    mean, deviation = (_spread(each, rows) for each in (rows.flatten(1).mean(1), rows.flatten(1).std(1)))
    low, high = _extremes(rows)
    extent = (high - low).clamp_min(1e-7)
    raised = ((rows - low) / extent).pow(_spread(gammas, rows)) * extent + low
    centred = raised - _spread(raised.flatten(1).mean(1), rows)
    return centred / _spread(raised.flatten(1).std(1), rows).clamp_min(1e-7) * deviation + mean
