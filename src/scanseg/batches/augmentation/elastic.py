"""Elastic deformation by smooth random displacements.

Source: Simard et al. 2003 (white noise, blurred by a Gaussian), scaled to a largest displacement as in
batchgeneratorsv2, nnU-Net's own transforms.
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
    """Parameters of the displacement field of one patch."""

    sigmas: tuple[float, float, float]
    """Standard deviation in voxels of the Gaussian blur of the displacements along z, y, x."""
    magnitudes: tuple[float, float, float]
    """Largest displacement in voxels along z, y, x."""
    seed: int
    """Seed of the noise, which is drawn on the device of the patch."""


def draw_deformation(
    spec: AffineTransform, *, size: Sequence[int], in_plane: bool, rng: np.random.Generator
) -> Deformation | None:
    """Draw the deformation of a patch.

    With probability 0 no random numbers are drawn.

    Args:
        spec: Probability and ranges.
        size: Voxels of the patch along z, y, x.
        in_plane: Displacements have no z component.
        rng: Source of randomness.

    Returns:
        The deformation. `None`: the patch is not deformed.
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
    """Return the displacements of a patch in voxels.

    Without displacements along z, all slices have the same ones.

    Args:
        deformation: Parameters of the displacement field.
        size: Voxels of the patch along z, y, x.
        device: Device of the result. Each type of device has its own random generator.

    Returns:
        Displacement of each voxel along z, y, x.
    """
    is_equal_in_slices = deformation.magnitudes[0] == 0
    drawn = (1, *size[1:]) if is_equal_in_slices else tuple(size)
    generator = torch.Generator(device).manual_seed(deformation.seed)
    noise = torch.randn((3, *drawn), generator=generator, device=device)
    frequencies = _squared_frequencies(drawn, device=device)
    steps = [
        _scale(_blur(noise[axis], sigma, frequencies), step)
        for axis, (sigma, step) in enumerate(zip(deformation.sigmas, deformation.magnitudes, strict=True))
    ]
    return torch.stack(steps).expand(3, *size)


def _squared_frequencies(size: Sequence[int], *, device: torch.device) -> Float[Tensor, "z y half"]:
    """Return the squared frequencies of a real Fourier transform.

    The unit of the frequencies is cycles per voxel.
    """
    depth, height, width = (torch.fft.fftfreq(voxels, device=device).square() for voxels in size)
    return depth[:, None, None] + height[:, None] + width[: size[-1] // 2 + 1]


def _blur(
    noise: Float[Tensor, "z y x"], sigma: float, squared_frequencies: Float[Tensor, "z y half"]
) -> Float[Tensor, "z y x"]:
    """Convolve with a periodic Gaussian by Fourier transform."""
    transfer = (-2 * (math.pi * sigma) ** 2 * squared_frequencies).exp()
    return torch.fft.irfftn(torch.fft.rfftn(noise) * transfer, s=noise.shape)


def _scale(steps: Float[Tensor, "z y x"], largest: float) -> Float[Tensor, "z y x"]:
    """Scale displacements to a largest absolute value."""
    return steps * (largest / steps.abs().max().clamp_min(1e-8))
