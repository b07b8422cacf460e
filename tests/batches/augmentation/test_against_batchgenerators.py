"""Transforms compared with nnU-Net's own (batchgeneratorsv2): distributions of results.

Each transform is drawn 1000 times on one image; means, standard deviations and gradient energies of the results are
compared by the two-sample Kolmogorov-Smirnov test. The image is 0 near its border, where the two extend it
differently when blurring.
"""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

pytest.importorskip(
    "batchgeneratorsv2.transforms.noise.gaussian_blur",
    reason="nnU-Net's transforms are not installed: pip install batchgeneratorsv2",
    exc_type=ImportError,
)

from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform as TheirContrast
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform as TheirGamma
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform as TheirNoise
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform as TheirBlur
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from scanseg.batches.batches import make_batch
from scanseg.batches.in_memory import InMemoryCases
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    SamplingSpec,
)

DRAWS = 1000
SHAPE = (16, 20, 18)
BORDER = 5
"""Voxels of the case around the patch, which rotation and scaling may move into it."""


def gamma(*, inverted):
    return TheirGamma(
        BGContrast((0.7, 1.5)), int(inverted), synchronize_channels=False, p_per_channel=1, p_retain_stats=1
    )


def spatial(**options):
    fixed = {"patch_center_dist_from_border": 0, "random_crop": False, "bg_style_seg_sampling": False}
    return SpatialTransform(SHAPE, **(fixed | {"p_elastic_deform": 0} | options))


SCALING = {"p_scaling": 1, "scaling": (0.7, 1.4), "p_synchronize_scaling_across_axes": 1}
ROTATION = {"p_rotation": 1, "rotation": (-np.pi / 6, np.pi / 6)}
ELASTIC = {
    "p_elastic_deform": 1,
    "elastic_deform_scale": (0.05, 0.2),
    "elastic_deform_magnitude": (0, 4),
    "p_synchronize_def_scale_across_axes": 0,
}
PAIRS = {
    "noise": (
        GaussianNoiseTransform(probability=1),
        TheirNoise((0, 0.1), p_per_channel=1, synchronize_channels=True),
    ),
    "blur": (
        GaussianBlurTransform(probability=1, channel_probability=1),
        TheirBlur((0.5, 1.0), p_per_channel=1),
    ),
    "brightness": (
        BrightnessTransform(probability=1),
        MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False),
    ),
    "contrast": (
        ContrastTransform(probability=1),
        TheirContrast(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False),
    ),
    "low resolution": (
        LowResolutionTransform(probability=1, channel_probability=1),
        SimulateLowResolutionTransform(
            (0.5, 1), synchronize_channels=False, synchronize_axes=True, ignore_axes=()
        ),
    ),
    "gamma": (GammaTransform(probability=1), gamma(inverted=False)),
    "inverted gamma": (GammaTransform(probability=1, inverted=True), gamma(inverted=True)),
    "scaling": (AffineTransform(rotation_probability=0, scale_probability=1), spatial(**SCALING)),
    "elastic": (
        AffineTransform(rotation_probability=0, scale_probability=0, elastic_probability=1),
        spatial(**ELASTIC),
    ),
    "rotation": (AffineTransform(rotation_probability=1, scale_probability=0), spatial(**ROTATION)),
}


@pytest.fixture(scope="module")
def image():
    """A normalized case of blobs that is larger than a patch. It is 0 at the border of the patch."""
    rng = np.random.default_rng(5)
    blobs = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    blobs = (blobs - blobs.mean()) / blobs.std()
    inner = np.zeros(SHAPE)
    inner[4:-4, 4:-4, 4:-4] = blobs[4:-4, 4:-4, 4:-4] + 1
    return np.pad(inner, BORDER).astype(np.float16).astype(np.float32)


def ours(spec, image):
    """Our results: patches of one batch, at one position of one case."""
    crop = image if isinstance(spec, AffineTransform) else image[(slice(BORDER, -BORDER),) * 3]
    volume = torch.from_numpy(np.ascontiguousarray(crop))
    shape = np.array([crop.shape])
    middle = np.ravel_multi_index(tuple(size // 2 for size in crop.shape), crop.shape)
    cases = InMemoryCases(
        names=("case",),
        images=volume.half().reshape(1, -1),
        label_maps=torch.zeros(volume.numel(), dtype=torch.uint8),
        shapes_host=shape,
        background_value=torch.zeros(1),
        locations=({"middle": np.array([middle])},),
        annotated=None,
    )
    sampling = SamplingSpec(patch_size=SHAPE, batch_size=DRAWS, foreground_fraction=1)
    numbers = {"seed": 0, "stream": 0, "iteration": 0}
    batch = make_batch(cases, sampling, transforms=(spec,), device=torch.device("cpu"), **numbers)
    return batch.images[:, 0].numpy()


def theirs(transform, image):
    """Results of repeated calls of their transform."""
    np.random.seed(0)  # noqa: NPY002 (their generator)
    torch.manual_seed(0)
    crop = image if isinstance(transform, SpatialTransform) else image[(slice(BORDER, -BORDER),) * 3]
    return np.stack(
        [transform(image=torch.from_numpy(crop[None].copy()))["image"][0].numpy() for _ in range(DRAWS)]
    )


def statistics(results, image):
    """Mean, standard deviation and gradient energy of each result, to four digits of the image's spread.

    Gamma and blur keep mean or deviation up to rounding, whose distribution is of no interest.
    """
    axes = (1, 2, 3)
    steps = [np.square(np.diff(results, axis=axis)).mean(axes) for axis in axes]
    values = {"mean": results.mean(axes), "deviation": results.std(axes), "gradient energy": sum(steps)}
    return {name: np.round(value / image.std(), 3) for name, value in values.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAIRS)
def test_distributions_of_results_agree(name, image):
    our_spec, their_transform = PAIRS[name]
    ours_by_name = statistics(ours(our_spec, image), image)
    theirs_by_name = statistics(theirs(their_transform, image), image)

    p = {
        key: stats.ks_2samp(ours_by_name[key], theirs_by_name[key]).pvalue
        for key in ("mean", "deviation", "gradient energy")
    }

    assert min(p.values()) > 0.01, {
        key: (round(p[key], 5), ours_by_name[key][:3], theirs_by_name[key][:3]) for key in p
    }


OTHERS = {
    "noise": GaussianNoiseTransform(probability=1, deviation_range=(0, 0.09)),
    "blur": GaussianBlurTransform(probability=1, channel_probability=1, sigma_range=(0.5, 0.95)),
    "brightness": BrightnessTransform(probability=1, factor_range=(0.75, 1.2)),
    "contrast": ContrastTransform(probability=1, factor_range=(0.75, 1.2)),
    "low resolution": LowResolutionTransform(probability=1, channel_probability=1, zoom_range=(0.65, 1.0)),
    "gamma": GammaTransform(probability=1, gamma_range=(0.7, 1.4)),
    "scaling": AffineTransform(rotation_probability=0, scale_probability=1, scale_range=(0.7, 1.3)),
    "elastic": AffineTransform(
        rotation_probability=0, scale_probability=0, elastic_probability=1, elastic_magnitude_range=(0, 3)
    ),
    "rotation": AffineTransform(
        rotation_probability=1, scale_probability=0, rotation_degrees_range=(-25.0, 25.0)
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_slightly_different_ranges_are_detected(name, image):
    """The test above can fail."""
    others = statistics(ours(OTHERS[name], image), image)
    theirs_by_name = statistics(theirs(PAIRS[name][1], image), image)

    assert min(stats.ks_2samp(others[key], theirs_by_name[key]).pvalue for key in others) < 1e-3
