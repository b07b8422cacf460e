"""Elastic deformation: each voxel of a patch is read a smooth random step away.

Source: Simard et al. 2003 (white noise, blurred by a Gaussian), scaled to a largest step as in batchgeneratorsv2,
nnU-Net's own transforms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.specs import AffineTransform


@dataclass(frozen=True)
class Deformation:
    """How one patch is deformed: a field of steps along z, y, x."""

    sigmas: tuple[float, float, float]
    """Deviation, in voxels, of the Gaussian that blurs the steps along each axis."""
    magnitudes: tuple[float, float, float]
    """Largest step along each axis, in voxels."""
    seed: int
    """Of the noise, which is drawn where the patch is."""


def draw_deformation(
    spec: AffineTransform, *, size: Sequence[int], in_plane: bool, rng: np.random.Generator
) -> Deformation | None:
    """Draw whether and how a patch is deformed; nothing is drawn where nothing ever is.

    Args:
        spec: Probability and ranges.
        size: Voxels of the patch along z, y, x.
        in_plane: Steps lie in the plane of y and x.
        rng: Source of randomness.
    """
    if not spec.elastic_probability or rng.random() >= spec.elastic_probability:
        return None
    z, y, x = (float(sigma) for sigma in rng.uniform(*spec.elastic_scale_range, size=3) * size)
    steps = [float(step) for step in rng.uniform(*spec.elastic_magnitude_range, size=3)]
    return Deformation(
        sigmas=(z, y, x),
        magnitudes=(0.0 if in_plane else steps[0], steps[1], steps[2]),
        seed=int(rng.integers(2**62)),
    )


def displacements_of(
    deformation: Deformation, *, size: Sequence[int], device: torch.device
) -> Float[Tensor, "3 z y x"]:
    """Return the step of each voxel of a patch along z, y, x.

    Without steps along z all slices are deformed alike.

    Args:
        deformation: How the patch is deformed.
        size: Voxels of the patch along z, y, x.
        device: Where the steps are needed; noise is that of its own generator.
    """
    alike = deformation.magnitudes[0] == 0
    drawn = (1, *size[1:]) if alike else tuple(size)
    generator = torch.Generator(device).manual_seed(deformation.seed)
    noise = torch.randn((3, *drawn), generator=generator, device=device)
    frequencies = _squared_frequencies(drawn, device=device)
    steps = [
        _scale(_blur(noise[axis], sigma, frequencies), step)
        for axis, (sigma, step) in enumerate(zip(deformation.sigmas, deformation.magnitudes, strict=True))
    ]
    return torch.stack(steps).expand(3, *size)


def _squared_frequencies(size: Sequence[int], *, device: torch.device) -> Float[Tensor, "z y half"]:
    """Return the squared length of the frequencies of a real Fourier transform, in cycles a voxel."""
    depth, height, width = (torch.fft.fftfreq(voxels, device=device).square() for voxels in size)
    return depth[:, None, None] + height[:, None] + width[: size[-1] // 2 + 1]


def _blur(
    noise: Float[Tensor, "z y x"], sigma: float, squared_frequencies: Float[Tensor, "z y half"]
) -> Float[Tensor, "z y x"]:
    """Convolve with a Gaussian as if space were periodic, by its Fourier transform."""
    passed = (-2 * (math.pi * sigma) ** 2 * squared_frequencies).exp()
    return torch.fft.irfftn(torch.fft.rfftn(noise) * passed, s=noise.shape)


def _scale(steps: Float[Tensor, "z y x"], largest: float) -> Float[Tensor, "z y x"]:
    """Scale steps so that the largest, forwards or backwards, is as wanted."""
    return steps * (largest / steps.abs().max().clamp_min(1e-8))
