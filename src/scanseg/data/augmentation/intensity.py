"""Changes of intensities. Each acts on some patches of a batch, chosen and parametrised on the host."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scanseg.data.parts import WHOLE, Part
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    MirrorTransform,
    Transform,
)

Images = Float[Tensor, "batch channel *axes"]

_TRUNCATE = 4.0
"""Standard deviations after which a Gaussian kernel ends."""


@dataclass(frozen=True, eq=False)
class _Draws:
    """Draws for the patches of a whole batch that are changed, of which some are here.

    All are drawn wherever the batch is, so that its parts, each made elsewhere, are those of the whole.
    """

    rng: np.random.Generator
    num_channels: int
    here: np.ndarray
    """Which of the changed patches are here, (changed,)."""

    def uniform(self, bounds: tuple[float, float], *, num_channels: int | None = None) -> np.ndarray:
        """Draw a number for each channel of each patch."""
        return self.rng.uniform(*bounds, size=self._size(num_channels))[self.here]

    def factor(self, bounds: tuple[float, float]) -> np.ndarray:
        """Draw a factor for each channel of each patch: as often below 1 as above, where the bounds hold 1."""
        low, high = bounds
        if not low < 1 < high:
            return self.uniform(bounds)
        size = self._size(None)
        below = self.rng.random(size) < 0.5
        drawn = np.where(below, self.rng.uniform(low, 1, size=size), self.rng.uniform(1, high, size=size))
        return drawn[self.here]

    def chosen(self, probability: float) -> np.ndarray:
        """Draw which channels of each patch are changed."""
        return (self.rng.random(self._size(None)) < probability)[self.here]

    def noise(self, images: Images, generator: torch.Generator) -> Images:
        """Draw normal noise for each voxel."""
        noise = torch.randn((len(self.here), *images.shape[1:]), generator=generator, device=images.device)
        return noise if self.here.all() else noise[torch.from_numpy(self.here).to(images.device)]

    def _size(self, num_channels: int | None) -> tuple[int, int]:
        return len(self.here), num_channels or self.num_channels


def apply_intensity(
    images: Images,
    spec: Transform,
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
    part: Part = WHOLE,
) -> Images:
    """Apply one transform to a batch, or to a part of it as it is applied to the whole.

    Args:
        images: Patches of the part; not changed.
        spec: The transform, a change of intensities.
        rng: Decides which patches are changed, and the parameters.
        generator: Source of noise, on the device of the patches.
        part: Which part of the batch the patches are.

    Returns:
        The patches after the transform.
    """
    patches = np.flatnonzero(rng.random(len(images) * part.count) < spec.probability)
    here = (patches >= part.index * len(images)) & (patches < (part.index + 1) * len(images))
    if not here.any():
        return images
    where = torch.from_numpy(patches[here] - part.index * len(images)).to(images.device)
    draws = _Draws(rng, num_channels=images.shape[1], here=here)
    return images.index_copy(0, where, _change(images[where], spec, draws, generator))


def _change(images: Images, spec: Transform, draws: _Draws, generator: torch.Generator) -> Images:
    """Change every patch that is given."""
    match spec:
        case GaussianNoiseTransform():
            deviation = draws.uniform(spec.deviation_range, num_channels=1)
            return images + draws.noise(images, generator) * _spread(deviation, images)
        case GaussianBlurTransform():
            chosen = draws.chosen(spec.channel_probability)
            axes = [draws.uniform(spec.sigma_range) for _ in range(2, images.ndim)]
            sigmas = np.maximum(np.stack(axes, axis=-1), 1e-3)
            return torch.where(_spread(chosen, images), blur(images, sigmas), images)
        case BrightnessTransform():
            return images * _spread(draws.factor(spec.factor_range), images)
        case ContrastTransform():
            return stretch(images, draws.factor(spec.factor_range))
        case LowResolutionTransform():
            chosen, zooms = draws.chosen(spec.channel_probability), draws.uniform(spec.zoom_range)
            lowered = lower_resolution(images, zooms, in_plane=spec.in_plane)
            return torch.where(_spread(chosen, images), lowered, images)
        case GammaTransform():
            gammas = draws.factor(spec.gamma_range)
            return -raise_to_gamma(-images, gammas) if spec.inverted else raise_to_gamma(images, gammas)
        case AffineTransform() | MirrorTransform():
            raise TypeError(f"{spec.kind} does not change intensities")


def _spread(values: np.ndarray, images: Images) -> Tensor:
    """Shape values of (batch, channel) so that they spread over the patches, in the patches' type."""
    dtype = torch.bool if values.dtype == np.bool_ else images.dtype
    tensor = torch.as_tensor(values, dtype=dtype).to(images.device)
    return tensor.reshape(*values.shape, *(1,) * (images.ndim - 2))


def blur(images: Images, sigmas: np.ndarray) -> Images:
    """Convolve each channel of each patch with a Gaussian.

    Args:
        images: Patches.
        sigmas: Standard deviations in voxels along each axis, (batch, channel, axis); or one for all, (batch, channel).
    """
    if sigmas.ndim == 2:
        sigmas = np.repeat(sigmas[..., None], images.ndim - 2, axis=2)
    for axis in range(2, images.ndim):
        if images.shape[axis] > 1:
            images = _blur_axis(images, sigmas[..., axis - 2], axis)
    return images


def _blur_axis(images: Images, sigmas: np.ndarray, axis: int) -> Images:
    """Convolve along one axis; each kernel ends by its own deviation, so that patches do not depend on each other."""
    radius = max(1, math.ceil(_TRUNCATE * float(sigmas.max())))
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / sigmas[..., None]) ** 2)
    weights *= np.abs(taps) <= np.maximum(1, np.ceil(_TRUNCATE * sigmas[..., None]))
    weights /= weights.sum(axis=-1, keepdims=True)
    padded = _extend(images, axis, radius)
    return sum(
        (
            padded.narrow(axis, tap, images.shape[axis]) * _spread(weights[..., tap], images)
            for tap in range(2 * radius + 1)
        ),
        start=torch.zeros((), device=images.device),
    )


def _extend(images: Images, axis: int, radius: int) -> Images:
    """Repeat the first and last plane of an axis outwards."""
    index = torch.arange(-radius, images.shape[axis] + radius, device=images.device)
    return images.index_select(axis, index.clamp(0, images.shape[axis] - 1))


def stretch(images: Images, factors: np.ndarray) -> Images:
    """Scale the distance of intensities from their channel's mean; the channel's extremes stay bounds.

    Args:
        images: Patches.
        factors: One for each channel of each patch, (batch, channel).
    """
    axes = tuple(range(2, images.ndim))
    mean = images.mean(axes, keepdim=True)
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    return ((images - mean) * _spread(factors, images) + mean).clamp(low, high)


def lower_resolution(images: Images, zooms: np.ndarray, *, in_plane: bool = False) -> Images:
    """Sample each channel down by nearest neighbour and up again linearly.

    Args:
        images: Patches.
        zooms: Voxels kept along each axis, as a fraction, (batch, channel).
        in_plane: Keep all voxels along the first of three axes.
    """
    size = images.shape[2:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    changed = []
    for patch, zoom in zip(images.flatten(0, 1), zooms.ravel(), strict=True):
        small = F.interpolate(
            patch[None, None], size=_zoomed(size, float(zoom), in_plane=in_plane), mode="nearest-exact"
        )
        changed.append(F.interpolate(small, size=size, mode=mode, align_corners=False)[0, 0])
    return torch.stack(changed).reshape(images.shape)


def _zoomed(size: Sequence[int], zoom: float, *, in_plane: bool) -> list[int]:
    """Return a smaller size, at least one voxel along each axis."""
    smaller = [max(1, round(voxels * zoom)) for voxels in size]
    return [size[0], *smaller[1:]] if in_plane and len(size) == 3 else smaller


def raise_to_gamma(images: Images, gammas: np.ndarray) -> Images:
    """Raise intensities, scaled to [0, 1] within each channel, to a power; keep mean and deviation.

    Args:
        images: Patches.
        gammas: Exponents, (batch, channel).
    """
    axes = tuple(range(2, images.ndim))
    mean, deviation = images.mean(axes, keepdim=True), images.std(axes, keepdim=True)
    low = images.amin(axes, keepdim=True)
    extent = (images.amax(axes, keepdim=True) - low).clamp_min(1e-7)
    raised = ((images - low) / extent).pow(_spread(gammas, images)) * extent + low
    centred = raised - raised.mean(axes, keepdim=True)
    return centred / raised.std(axes, keepdim=True).clamp_min(1e-7) * deviation + mean
