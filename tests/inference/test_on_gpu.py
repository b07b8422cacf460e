import pytest
import torch
from torch import nn

from scanseg.inference import windows
from scanseg.inference.resample import resample_to_source
from scanseg.inference.windows import SlidingWindow
from scanseg.specs import CaseGeometry
from tests.factories import join_slabs

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
GEOMETRY = CaseGeometry(
    num_axes=3,
    source_shape=(30, 50, 44),
    source_spacing=(1.0, 1.0, 1.0),
    axis_order=(0, 1, 2),
    crop_start=(0, 0, 0),
    crop_shape=(30, 50, 44),
    shape=(18, 30, 30),
)


def predict(network, image, device, **changes):
    sliding_window = SlidingWindow(
        patch_size=(8, 16, 16), num_outputs=3, window_batch=4, mirror_axes=(0, 2), **changes
    )
    return join_slabs([network.to(device)], image, sliding_window, device=device)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.GELU(), nn.Conv3d(8, 3, 1))


@pytest.fixture
def image(generator):
    return torch.randn(1, 18, 30, 30, generator=generator)


def test_windows_equal_the_cpu(network, image):
    expected = predict(network, image, torch.device("cpu"))
    result = predict(network, image, GPU)
    assert (result.device.type, result.dtype) == ("cuda", torch.float32)
    # Convolutions may round to TF32.
    torch.testing.assert_close(result.cpu(), expected, atol=5e-3, rtol=0)
    lowered = predict(network, image, GPU, autocast_dtype=torch.bfloat16)
    torch.testing.assert_close(lowered.cpu(), expected, atol=5e-2, rtol=0)


def test_the_host_holds_logits_that_do_not_fit(network, image, monkeypatch):
    expected = predict(network, image, GPU)
    monkeypatch.setattr(windows, "DEVICE_FRACTION", 0.0)
    result = predict(network, image, GPU)
    assert (result.device.type, result.dtype) == ("cpu", torch.float16)
    torch.testing.assert_close(result.float(), expected.cpu(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("slab_bytes", [1, 1 << 30])
def test_thin_slabs_equal_thick_ones(network, image, slab_bytes, monkeypatch):
    expected = predict(network, image, GPU, disagreement=True)
    monkeypatch.setattr(windows, "SLAB_BYTES", slab_bytes)
    torch.testing.assert_close(predict(network, image, GPU, disagreement=True), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("held_on", ["cpu", "cuda"])
def test_resampling_equals_the_cpu(held_on, generator):
    logits = torch.randn(4, *GEOMETRY.shape, generator=generator)

    def resampled(slabs, device, **changes):
        return resample_to_source(
            slabs,
            GEOMETRY,
            num_outputs=3,
            separate_z=False,
            regions_class_order=None,
            device=device,
            probabilities=True,
            entropy=True,
            **changes,
        )

    expected = resampled([logits], torch.device("cpu"))
    result = resampled(logits.to(held_on).split(7, dim=1), GPU, slab_bytes=200_000)
    assert (result.label_map != expected.label_map).mean() < 1e-4
    for name in ("probabilities", "entropy", "disagreement"):
        assert abs(getattr(result, name) - getattr(expected, name)).max() < 4e-3
