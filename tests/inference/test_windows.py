import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from scanseg.errors import ScansegError
from scanseg.inference import windows
from scanseg.inference.arrays import arrays_on
from scanseg.inference.windows import (
    SlidingWindow,
    gaussian_weights,
    predict_slabs,
    window_starts,
)
from tests.factories import join_slabs

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Network that applies a function and counts calls and windows."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls, self.windows = function, 0, 0

    def forward(self, batch):
        self.calls += 1
        self.windows += len(batch)
        return self.function(batch)


def ignore(progress):
    pass


def predict(network, image, patch_size, *, progress=ignore, **changes):
    settings = {"num_outputs": len(image), "overlap": 0.5, "window_batch": 3}
    sliding_window = SlidingWindow(patch_size=patch_size, **(settings | changes))
    networks = network if isinstance(network, list) else [network]
    return join_slabs(networks, image, sliding_window, device=CPU, progress=progress)


sizes = st.tuples(st.integers(1, 40), st.integers(0, 60)).map(lambda pair: (pair[0] + pair[1], pair[0]))


@given(st.lists(sizes, min_size=1, max_size=2), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 0.99]))
@settings(deadline=None)
def test_windows_cover_everything_and_stay_inside(axes, overlap):
    shape, patch = zip(*axes, strict=True)
    starts = window_starts(shape, patch_size=patch, overlap=overlap)
    places = [sorted({start[axis] for start in starts}) for axis in range(len(axes))]
    assert starts == list(itertools.product(*places))
    for (size, width), along in zip(axes, places, strict=True):
        assert (along[0], along[-1]) == (0, size - width)
        assert all(0 < after - before <= width for before, after in itertools.pairwise(along))
        assert len(along) == 1 + math.ceil((size - width) / max(1, width * (1 - overlap)) - 1e-9)


def test_positions_of_nnunet():
    # Computed by nnU-Net v2's compute_steps_for_sliding_window.
    assert window_starts((100,), patch_size=(40,), overlap=0.5) == [(0,), (20,), (40,), (60,)]
    assert window_starts((128,), patch_size=(50,), overlap=0.5) == [(0,), (20,), (39,), (58,), (78,)]
    assert window_starts((7, 4), patch_size=(4, 4), overlap=0.5) == [(0, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("patch", [(8, 16), (9, 24, 40), (1, 16, 16)])
def test_weights_are_nnunets_gaussian(patch):
    weights = gaussian_weights(patch, arrays_on(CPU)).numpy()
    assert weights.shape == patch
    assert weights.max() == 1
    assert weights.min() > 0
    peak = np.zeros(patch)
    peak[tuple(size // 2 for size in patch)] = 1
    filtered = ndimage.gaussian_filter(peak, [size / 8 for size in patch], mode="constant")
    # scipy cuts the Gaussian off at four standard deviations.
    np.testing.assert_allclose(weights, filtered / filtered.max(), atol=1e-3)


@pytest.mark.parametrize("shape", [(20, 17, 31), (3, 40, 5), (1, 1, 1), (8, 8, 8)])
@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_the_identity_is_reproduced_exactly(shape, patch, overlap, generator):
    image = torch.randn(2, *shape, generator=generator)
    assert torch.equal(predict(nn.Identity(), image, patch, overlap=overlap), image)


def test_windows_are_blended_by_gaussian_weights(generator):
    image = torch.randn(1, 9, 12, 10, generator=generator)
    patch, numbers = (6, 6, 6), iter(range(1000))
    network = Counting(
        lambda batch: torch.stack([torch.full_like(window, next(numbers)) for window in batch])
    )
    blended = predict(network, image, patch, window_batch=2)
    total, weight = torch.zeros(2, *image.shape[1:], dtype=torch.float64)
    gaussian = gaussian_weights(patch, arrays_on(CPU)).double()
    for number, start in enumerate(window_starts(image.shape[1:], patch_size=patch, overlap=0.5)):
        box = tuple(slice(first, first + 6) for first in start)
        total[box] += number * gaussian
        weight[box] += gaussian
    torch.testing.assert_close(blended[0], (total / weight).float())


def test_a_2d_network_gets_each_slice_once_if_it_fits(generator):
    image = torch.randn(3, 5, 8, 6, generator=generator)
    network = Counting(lambda batch: batch.mean(dim=(2, 3), keepdim=True).expand_as(batch))
    result = predict(network, image, (8, 6), window_batch=2)
    assert (network.calls, network.windows) == (3, 5)
    torch.testing.assert_close(result, image.mean(dim=(2, 3), keepdim=True).expand_as(image))


def test_results_do_not_depend_on_the_window_batch(generator):
    image = torch.randn(1, 12, 12, 12, generator=generator)
    one, many = (Counting(lambda batch: batch.cumsum(-1)) for _ in range(2))
    assert torch.equal(
        predict(one, image, (8, 8, 8), window_batch=1), predict(many, image, (8, 8, 8), window_batch=16)
    )
    assert (one.calls, many.calls) == (8, 1)


@pytest.mark.parametrize("background_value", [(), (-1.0,)])
def test_small_images_are_padded_on_both_sides(background_value):
    seen = []
    network = Counting(lambda batch: seen.append(batch) or batch)
    predict(network, torch.ones(1, 4, 2, 5), (4, 5, 4), background_value=background_value)
    assert seen[0].shape[1:] == (1, 4, 5, 4)
    outside = 4 * sum(background_value)
    assert seen[0][0, 0, 0].sum(1).tolist() == [outside, 4, 4, outside, outside]


@pytest.mark.parametrize(("axes", "passes"), [((), 1), ((0,), 2), ((0, 2), 4), ((0, 1, 2), 8)])
def test_mirroring_averages_over_all_flips(axes, passes, generator):
    image = torch.randn(1, 6, 6, 6, generator=generator)
    ramp = torch.arange(6.0)
    network = Counting(lambda batch: batch * (ramp[:, None, None] + 10 * ramp[:, None] + 100 * ramp))
    result = predict(network, image, (6, 6, 6), mirror_axes=axes)
    assert network.calls == passes
    flat = [torch.full((6,), 2.5) if axis in axes else ramp for axis in range(3)]
    expected = image * (flat[0][:, None, None] + 10 * flat[1][:, None] + 100 * flat[2])
    torch.testing.assert_close(result, expected)


def test_mirroring_does_not_change_a_symmetric_network(generator):
    image = torch.randn(2, 9, 10, 11, generator=generator)
    network = nn.Conv3d(2, 2, 1)
    plain = predict(network, image, (8, 8, 8))
    torch.testing.assert_close(predict(network, image, (8, 8, 8), mirror_axes=(0, 1, 2)), plain)


def test_large_logits_are_held_in_half_precision(generator, monkeypatch):
    image = 5 * torch.randn(1, 20, 20, 20, generator=generator)
    network = nn.Conv3d(1, 3, 3, padding=1)
    exact = predict(network, image, (8, 8, 8), num_outputs=3)
    monkeypatch.setattr(windows, "HOST_FLOAT32_BYTES", 0)
    result = predict(network, image, (8, 8, 8), num_outputs=3)
    assert (exact.dtype, result.dtype) == (torch.float32, torch.float16)
    # Each of up to 27 windows rounds the mean once more; measured 4e-3.
    torch.testing.assert_close(result.float(), exact, atol=1e-2, rtol=0)


def test_autocast_applies_to_the_network_only():
    seen = []
    network = nn.Sequential(nn.Conv3d(1, 2, 1), Counting(lambda batch: seen.append(batch.dtype) or batch))
    result = predict(network, torch.ones(1, 4, 4, 4), (4, 4, 4), num_outputs=2, autocast_dtype=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert result.dtype == torch.float32


def test_progress_counts_windows():
    updates = []
    predict(nn.Identity(), torch.ones(1, 8, 8, 12), (8, 8, 8), window_batch=1, progress=updates.append)
    assert [(progress.done, progress.total) for progress in updates] == [(0, 2), (1, 2), (2, 2)]


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(ScansegError, match=r"shape \(1, 3, 4, 4, 4\) by the plan, got \(1, 1, 4, 4, 4\)"):
        predict(nn.Identity(), torch.ones(1, 4, 4, 4), (4, 4, 4), num_outputs=3)


def test_the_image_is_not_changed(generator):
    image = torch.randn(1, 5, 5, 5, generator=generator)
    before = image.clone()
    predict(nn.ReLU(inplace=True), image, (5, 5, 5))
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(40, 9, 11), (7, 9, 11), (5, 3, 4)])
@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
def test_slabs_are_thin_and_equal_the_whole_image(shape, patch, generator, monkeypatch):
    image = torch.randn(2, *shape, generator=generator)
    network = nn.Conv3d(2, 3, 3, padding=1) if len(patch) == 3 else nn.Conv2d(2, 3, 3, padding=1)
    sliding_window = SlidingWindow(
        patch_size=patch, num_outputs=3, overlap=0.6, window_batch=3, mirror_axes=(0,)
    )
    whole = join_slabs([network], image, sliding_window, device=CPU)
    monkeypatch.setattr(windows, "SLAB_BYTES", 1)
    slabs = [slab.clone() for slab in predict_slabs([network], image, sliding_window, device=CPU)]
    assert torch.equal(torch.cat(slabs, dim=1), whole)
    assert max(slab.shape[1] for slab in slabs) <= (8 if len(patch) == 3 else 1)


def test_mean_and_disagreement_of_several_networks(generator):
    image = torch.randn(1, 6, 6, 6, generator=generator)
    networks = [nn.Conv3d(1, 3, 3, padding=1) for _ in range(2)]
    with torch.no_grad():
        for network in networks:
            network.weight.mul_(10)
    mean, *_, disagreement = predict(networks, image, (6, 6, 6), num_outputs=3, disagreement=True)
    logits = [network(image[None])[0].double() for network in networks]
    torch.testing.assert_close(mean.double(), (logits[0] + logits[1])[0] / 2, atol=1e-5, rtol=1e-5)

    def entropy(probabilities):
        return -(probabilities * probabilities.log()).sum(0) / math.log(3)

    members = [each.softmax(0) for each in logits]
    expected = entropy(sum(members) / 2) - sum(entropy(member) for member in members) / 2
    torch.testing.assert_close(disagreement.double(), expected.detach(), atol=1e-5, rtol=1e-4)
    assert disagreement.max() > 0.1


@pytest.mark.parametrize("regions", [False, True])
def test_equal_members_have_no_disagreement(regions, generator):
    image = torch.randn(2, 9, 10, 11, generator=generator)
    network = nn.Conv3d(2, 2, 1)
    result = predict(
        [network, network], image, (8, 8, 8), mirror_axes=(0,), disagreement=True, regions=regions
    )
    assert result.shape[0] == 3
    assert result[2].max() < 1e-5
