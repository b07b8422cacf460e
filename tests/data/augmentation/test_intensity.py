"""Changes of intensities, by what a user would notice."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from scanseg.data.augmentation import apply_intensity
from scanseg.data.augmentation.intensity import blur, lower_resolution, raise_to_gamma, stretch
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
)

TRANSFORMS = [
    GaussianNoiseTransform(probability=0.5, deviation_range=(0.3, 0.3)),
    GaussianBlurTransform(probability=0.5),
    BrightnessTransform(probability=0.5),
    ContrastTransform(probability=0.5),
    LowResolutionTransform(probability=0.5, channel_probability=1.0, zoom_range=(0.5, 0.6)),
    GammaTransform(probability=0.5),
    GammaTransform(probability=0.5, inverted=True),
]


@pytest.fixture(params=[(6, 7, 8), (9, 10)], ids=["3d", "2d"])
def images(request, generator):
    return torch.randn(40, 2, *request.param, generator=generator)


def apply(images, spec, seed=0):
    return apply_intensity(
        images, spec, rng=np.random.default_rng(seed), generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("spec", TRANSFORMS, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'inverted', '')}")
def test_some_patches_change_the_others_stay_and_the_input_is_left_alone(images, spec):
    before = images.clone()

    changed = apply(images, spec)

    differs = (changed != images).flatten(1).any(1)
    assert 8 <= int(differs.sum()) <= 32
    assert changed.isfinite().all()
    assert torch.equal(images, before)
    assert torch.equal(changed, apply(images, spec))
    assert not torch.equal(changed, apply(images, spec, seed=1))


def test_spatial_transforms_are_refused(images):
    with pytest.raises(TypeError, match="affine does not change intensities"):
        apply(images, AffineTransform())


def test_noise_has_the_asked_deviation(images):
    spec = GaussianNoiseTransform(probability=1.0, deviation_range=(0.5, 0.5))

    assert (apply(images, spec) - images).std().item() == pytest.approx(0.5, rel=0.05)


def test_blur_is_a_gaussian_with_repeated_borders(images):
    sigmas = np.linspace(0.5, 1.0, 80).reshape(40, 2)

    blurred = blur(images, sigmas)

    expected = ndimage.gaussian_filter(images[3, 1].numpy(), sigmas[3, 1], mode="nearest", truncate=8)
    torch.testing.assert_close(blurred[3, 1], torch.tensor(expected), atol=2e-4, rtol=1e-3)


def test_contrast_stretches_about_the_mean_within_the_extremes(images):
    factors = np.full((40, 2), 0.5)

    stretched = stretch(images, factors)

    mean = images.mean(tuple(range(2, images.ndim)), keepdim=True)
    torch.testing.assert_close(stretched, (images - mean) * 0.5 + mean)
    wider = stretch(images, factors * 4)
    assert wider.max() <= images.max()
    assert wider.std() > images.std()


def test_gamma_keeps_mean_and_deviation_and_the_order_of_intensities(images):
    raised = raise_to_gamma(images, np.full((40, 2), 1.5))

    axes = tuple(range(2, images.ndim))
    torch.testing.assert_close(raised.mean(axes), images.mean(axes), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(raised.std(axes), images.std(axes), atol=1e-5, rtol=1e-4)
    assert torch.equal(raised[0, 0].flatten().argsort(), images[0, 0].flatten().argsort())


def test_gamma_leaves_a_constant_patch_finite():
    assert raise_to_gamma(torch.ones(1, 1, 4, 4), np.full((1, 1), 1.5)).isfinite().all()


def test_lower_resolution_loses_detail_but_not_what_is_constant():
    stripes = torch.zeros(1, 1, 8, 8)
    stripes[..., ::2] = 1

    assert lower_resolution(stripes, np.full((1, 1), 0.5)).std() < 0.5 * stripes.std()
    constant = torch.full((1, 1, 8, 8), 3.0)
    torch.testing.assert_close(lower_resolution(constant, np.full((1, 1), 0.5)), constant)
    torch.testing.assert_close(lower_resolution(stripes, np.ones((1, 1))), stripes)
