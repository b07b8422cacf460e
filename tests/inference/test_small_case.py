"""The small case that a worker predicts while it loads."""

import tempfile

import pytest

from scanseg.inference import predict_small_case
from scanseg.specs import NoNormalization

COLOURS = ("R", "G", "B")


@pytest.mark.parametrize(
    ("ending", "channels", "num_axes", "written"),
    [
        (".nii.gz", ("MRI",), 3, ".nii.gz"),
        (".nrrd", ("T1", "T2"), 3, ".nrrd"),
        (".mhd", ("MRI",), 3, ".mha"),
        (".tif", ("cells",), 3, ".tif"),
        (".dcm", ("CT",), 3, ".nii.gz"),
        (".png", COLOURS, 2, ".png"),
        (".jpg", ("grey",), 2, ".png"),
        (".bmp", ("grey",), 2, ".bmp"),
    ],
)
def test_every_format_is_read_and_written(
    make_predictor, tmp_path, monkeypatch, ending, channels, num_axes, written
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predictor = make_predictor(
        num_axes=num_axes,
        patch_size=(16,) * num_axes,
        dataset={"file_ending": ending, "channel_names": channels},
        preprocessing={"normalizations": (NoNormalization(),) * len(channels)},
    )
    entry = predict_small_case(predictor, segment=False)
    assert entry.fault is None
    assert entry.label_map == f"label_map{written}"
    assert len(entry.images) == (1 if channels == COLOURS else len(channels))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patch_size", [(16, 16, 16), (16, 16)])
def test_the_network_gets_one_window(make_predictor, patch_size):
    seen = []

    def network(windows):
        seen.append(tuple(windows.shape))
        return windows.repeat(1, 2, *(1,) * len(patch_size))

    predictor = make_predictor(patch_size=patch_size, preprocessing={"spacing": (2.0, 2.0, 2.0)})
    predictor.networks.mean = network
    entry = predict_small_case(predictor, segment=True)
    assert entry.fault is None
    assert seen == [(1, 1, *patch_size)]
