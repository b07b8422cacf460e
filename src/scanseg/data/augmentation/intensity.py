"""Changes of intensities. Each acts on some patches of a batch, chosen and parametrised on the host."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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


def apply_intensity(
    images: Images, spec: Transform, *, rng: np.random.Generator, generator: torch.Generator
) -> Images:
    """Apply one transform to a batch.

    Args:
        images: Patches; not changed.
        spec: The transform, a change of intensities.
        rng: Decides which patches are changed, and the parameters.
        generator: Source of noise, on the device of the patches.

    Returns:
        The patches after the transform.
    """
    patches = np.flatnonzero(rng.random(images.shape[0]) < spec.probability)
    if not len(patches):
        return images
    where = torch.from_numpy(patches).to(images.device)
    return images.index_copy(0, where, _change(images[where], spec, rng=rng, generator=generator))


def _change(
    images: Images, spec: Transform, *, rng: np.random.Generator, generator: torch.Generator
) -> Images:
    """Change every patch of a batch."""
    match spec:
        case GaussianNoiseTransform():
            deviation = rng.uniform(*spec.deviation_range, size=(images.shape[0], 1))
            noise = torch.randn(images.shape, generator=generator, device=images.device)
            return images + noise * _spread(deviation, images)
        case GaussianBlurTransform():
            chosen, sigmas = _draw(spec.sigma_range, images, rng, probability=spec.channel_probability)
            return torch.where(chosen, blur(images, np.maximum(sigmas, 1e-3)), images)
        case BrightnessTransform():
            return images * _spread(rng.uniform(*spec.factor_range, size=images.shape[:2]), images)
        case ContrastTransform():
            return stretch(images, rng.uniform(*spec.factor_range, size=images.shape[:2]))
        case LowResolutionTransform():
            chosen, zooms = _draw(spec.zoom_range, images, rng, probability=spec.channel_probability)
            return torch.where(chosen, lower_resolution(images, zooms, in_plane=spec.in_plane), images)
        case GammaTransform():
            gammas = rng.uniform(*spec.gamma_range, size=images.shape[:2])
            return -raise_to_gamma(-images, gammas) if spec.inverted else raise_to_gamma(images, gammas)
        case AffineTransform() | MirrorTransform():
            raise TypeError(f"{spec.kind} does not change intensities")


def _draw(
    bounds: tuple[float, float], images: Images, rng: np.random.Generator, *, probability: float
) -> tuple[Tensor, np.ndarray]:
    """Draw which channels of each patch are changed (spread over them) and one parameter for each."""
    chosen = rng.random(images.shape[:2]) < probability
    return _spread(chosen, images), rng.uniform(*bounds, size=images.shape[:2])


def _spread(values: np.ndarray, images: Images) -> Tensor:
    """Shape values of (batch, channel) so that they spread over the patches, in the patches' type."""
    dtype = torch.bool if values.dtype == np.bool_ else images.dtype
    tensor = torch.as_tensor(values, dtype=dtype).to(images.device)
    return tensor.reshape(*values.shape, *(1,) * (images.ndim - 2))


def blur(images: Images, sigmas: np.ndarray) -> Images:
    """Convolve each channel of each patch with a Gaussian.

    Args:
        images: Patches.
        sigmas: Standard deviations in voxels, (batch, channel).
    """
    radius = max(1, math.ceil(_TRUNCATE * float(sigmas.max())))
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / sigmas[..., None]) ** 2)
    weights /= weights.sum(axis=-1, keepdims=True)
    for axis in range(2, images.ndim):
        if images.shape[axis] == 1:
            continue
        padded = _extend(images, axis, radius)
        images = sum(
            (
                padded.narrow(axis, tap, images.shape[axis]) * _spread(weights[..., tap], images)
                for tap in range(2 * radius + 1)
            ),
            start=torch.zeros((), device=images.device),
        )
    return images


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
