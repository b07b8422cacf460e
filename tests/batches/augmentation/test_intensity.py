"""Effects of intensity transforms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from scanseg.batches.augmentation import apply_intensity
from scanseg.batches.augmentation.intensity import (
    convolve,
    gaussian_weights,
    lower_resolution,
    raise_to_gamma,
    stretch,
)
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
        images,
        spec,
        rngs=[np.random.default_rng(seed)],
        generators=[torch.Generator().manual_seed(seed)],
    )


@pytest.mark.parametrize("spec", TRANSFORMS, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'inverted', '')}")
def test_some_patches_change_and_the_input_is_not_modified(images, spec):
    before = images.clone()

    changed = apply(images, spec)

    differs = (changed != images).flatten(1).any(1)
    assert 8 <= int(differs.sum()) <= 32
    assert changed.isfinite().all()
    assert torch.equal(images, before)
    assert torch.equal(changed, apply(images, spec))
    assert not torch.equal(changed, apply(images, spec, seed=1))


def test_spatial_transforms_are_refused(images):
    with pytest.raises(TypeError, match="expected a change of intensities, got affine"):
        apply(images, AffineTransform())


def test_noise_has_the_given_standard_deviation(images):
    spec = GaussianNoiseTransform(probability=1.0, deviation_range=(0.5, 0.5))

    assert (apply(images, spec) - images).std().item() == pytest.approx(0.5, rel=0.05)


def test_blur_is_a_gaussian_with_repeated_borders(images):
    rows = images.flatten(0, 1)
    sigmas = np.linspace(0.5, 1.0, 80 * (rows.ndim - 1)).reshape(80, -1)

    blurred = convolve(rows, [torch.from_numpy(weights) for weights in gaussian_weights(sigmas)])

    expected = ndimage.gaussian_filter(rows[7].numpy(), sigmas[7], mode="nearest", truncate=8)
    torch.testing.assert_close(blurred[7], torch.tensor(expected), atol=2e-4, rtol=1e-3)


def test_a_blur_does_not_depend_on_wider_kernels_of_other_rows(images):
    rows = images.flatten(0, 1)[:2]
    sigmas = np.array([[0.3], [2.0]]).repeat(rows.ndim - 1, axis=1)

    def blur(chosen):
        weights = [torch.from_numpy(each) for each in gaussian_weights(sigmas[chosen])]
        return convolve(rows[chosen], weights)

    assert torch.equal(blur(slice(0, 2))[:1], blur(slice(0, 1)))


def test_contrast_stretches_about_the_mean_within_the_extremes(images):
    rows, factors = images.flatten(0, 1), torch.full((80,), 0.5)

    stretched = stretch(rows, factors)

    mean = rows.flatten(1).mean(1).view(-1, *(1,) * (rows.ndim - 1))
    torch.testing.assert_close(stretched, (rows - mean) * 0.5 + mean)
    wider = stretch(rows, factors * 4)
    assert wider.max() <= rows.max()
    assert wider.std() > rows.std()


def test_gamma_keeps_mean_and_deviation_and_the_order_of_intensities(images):
    rows = images.flatten(0, 1)
    raised = raise_to_gamma(rows, torch.full((80,), 1.5))

    axes = tuple(range(1, rows.ndim))
    torch.testing.assert_close(raised.mean(axes), rows.mean(axes), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(raised.std(axes), rows.std(axes), atol=1e-5, rtol=1e-4)
    assert torch.equal(raised[0].flatten().argsort(), rows[0].flatten().argsort())


def test_gamma_leaves_a_constant_patch_finite():
    assert raise_to_gamma(torch.ones(1, 4, 4), torch.tensor([1.5])).isfinite().all()


def test_lower_resolution_removes_detail_and_keeps_constants():
    stripes = torch.zeros(1, 8, 8)
    stripes[..., ::2] = 1

    assert lower_resolution(stripes, np.array([0.5])).std() < 0.5 * stripes.std()
    constant = torch.full((1, 8, 8), 3.0)
    torch.testing.assert_close(lower_resolution(constant, np.array([0.5])), constant)
    torch.testing.assert_close(lower_resolution(stripes, np.array([1.0])), stripes)
