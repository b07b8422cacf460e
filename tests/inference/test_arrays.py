"""Prediction gives the same maps for arrays of NumPy as for tensors of PyTorch."""

import numpy as np
import pytest
import torch

from scanseg.inference import Predictor, windows
from scanseg.inference.arrays import Host, NumpyArrays, arrays_of, arrays_on
from scanseg.inference.networks import Networks

CPU = torch.device("cpu")
REGIONS = {"labels": {"background": 0, "whole": (1, 2), "core": (2,)}, "regions_class_order": (1, 2)}


def waves(first, library):
    """Return smooth logits of two outputs, which depend on the position in a window."""
    return library.sin(7 * first) - 0.2, 1.5 * library.cos(5 * first) + first * first - 0.6


class Waves(torch.nn.Module):
    def forward(self, batch):
        return torch.stack(waves(batch[:, 0].cumsum(-1) / 8, torch), dim=1)


class NumpyWaves:
    """The same network for arrays of NumPy."""

    device, precision, autocast_dtype, libraries = Host(), "float32", None, ("numpy",)

    def mean(self, batch):
        return np.stack(waves(batch[:, 0].cumsum(-1) / np.float32(8), np), axis=1)

    @property
    def network(self):
        return self.mean

    @property
    def members(self):
        return [self.mean]

    def content(self):
        yield b"waves"

    def lacks_memory(self, error):
        return isinstance(error, MemoryError)

    def describe_device(self):
        return "cpu"


def test_networks_of_other_libraries_are_recognized():
    assert isinstance(NumpyWaves(), Networks)
    assert not isinstance(Waves(), Networks)


@pytest.mark.parametrize("slab_bytes", [windows.SLAB_BYTES, 1])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"preprocessing": {"spacing": (2.0, 1.3, 0.7)}},
        {"preprocessing": {"spacing": (9.0, 1.0, 1.0)}, "dataset": REGIONS},
        {"patch_size": (8, 8), "preprocessing": {"crop_to_nonzero": True}},
    ],
    ids=["same grid", "other spacing", "slices apart, regions", "2D network, cropped"],
)
def test_the_maps_of_a_predictor_are_those_of_torch(make_plan, rng, monkeypatch, changes, slab_bytes):
    monkeypatch.setattr(windows, "SLAB_BYTES", slab_bytes)
    axes = (0, 1) if "patch_size" in changes else (0, 2)
    plan = make_plan(inference={"mirror_axes": axes, "window_batch": 3}, **changes)
    image = rng.random((11, 14, 13), dtype=np.float32)
    image[:, :2], image[:, :, -3:] = 0, 0
    options = {"mirror": True, "probabilities": True, "uncertainty": True, "spacing": (3.0, 1.0, 1.0)}
    expected = Predictor(plan, Waves(), device=CPU).predict(image, **options)
    found = Predictor(plan, NumpyWaves()).predict(image, **options)
    assert len(np.unique(expected.label_map)) > 1
    assert expected.disagreement.max() > 0.01
    # Sums have another order, so a voxel may change its label if two logits are almost equal.
    assert (found.label_map == expected.label_map).mean() > 0.999
    for name in ("probabilities", "entropy", "disagreement"):
        value, other = (getattr(each, name).astype(np.float64) for each in (found, expected))
        np.testing.assert_allclose(value, other, atol=1e-3, err_msg=name)  # float16


def test_large_slabs_are_held_in_16_bits(make_plan, rng, monkeypatch):
    plan, image = make_plan(), rng.random((9, 14, 13), dtype=np.float32)
    expected = Predictor(plan, NumpyWaves()).predict(image, probabilities=True).probabilities
    monkeypatch.setattr(windows, "HOST_FLOAT32_BYTES", 0)
    found = Predictor(plan, NumpyWaves()).predict(image, probabilities=True).probabilities
    assert (found != expected).any()
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=5e-3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("flip", ((1, 2),)),
        ("softmax", ()),
        ("sigmoid", ()),
        ("exp", ()),
        ("argmax", ()),
        ("take", (np.array([2, 0]),)),
        ("resize_planes", ((9, 4),)),
        ("copy", ()),
    ],
)
def test_operations_are_those_of_torch(rng, name, arguments):
    array = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    expected = getattr(arrays_on(CPU), name)(torch.from_numpy(array), *arguments).numpy()
    found = getattr(arrays_of(array), name)(array, *arguments)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_terms_of_the_entropy_are_zero_for_probability_zero():
    values = np.array([0.0, 0.25, 1.0], dtype=np.float32)
    expected = arrays_on(CPU).entropy_terms(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(NumpyArrays().entropy_terms(values), expected, rtol=1e-6)
    assert expected[0] == 0


def test_planes_are_padded_by_zeros(rng):
    array = rng.random((2, 3, 4), dtype=np.float32)
    padding = {"rows": (1, 2), "columns": (0, 3)}
    expected = arrays_on(CPU).pad_planes(torch.from_numpy(array), **padding).numpy()
    np.testing.assert_array_equal(NumpyArrays().pad_planes(array, **padding), expected)
    assert expected.shape == (2, 6, 7)
