import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.imaging import (
    Image,
    compare_geometry,
    read_label_map,
    write_colours,
    write_label_map,
    write_probabilities,
)
from tests.factories import image_of

VOLUME = Image(
    array=np.zeros((1, 3, 4, 5), dtype=np.float32),
    spacing=(3.0, 0.5, 0.75),
    origin=(1.0, -2.0, 3.0),
    direction=(0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
)
PICTURE = Image(
    array=np.zeros((3, 4, 5), dtype=np.uint8),
    spacing=(1.0, 1.0),
    origin=(0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 1.0),
)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_label_map_comes_back_on_the_same_grid(tmp_path, rng, ending):
    labels = rng.integers(0, 256, VOLUME.shape)
    write_label_map(tmp_path / f"a{ending}", labels, like=VOLUME)
    label_map = read_label_map(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(label_map.array[0], labels)
    assert compare_geometry(VOLUME, label_map) == []
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".nii.gz"])
def test_label_map_of_a_picture(tmp_path, rng, ending):
    labels = rng.integers(0, 4, PICTURE.shape, dtype=np.uint8)
    write_label_map(tmp_path / f"a{ending}", labels, like=PICTURE)
    np.testing.assert_array_equal(read_label_map(tmp_path / f"a{ending}").array[0], labels)


def test_tiff_keeps_spacing_beside_it(tmp_path, rng):
    labels = rng.integers(0, 4, VOLUME.shape, dtype=np.uint8)
    write_label_map(tmp_path / "a.tif", labels, like=VOLUME)
    label_map = read_label_map(tmp_path / "a.tif")
    np.testing.assert_array_equal(label_map.array[0], labels)
    assert label_map.spacing == VOLUME.spacing


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("a.jpg", np.zeros((3, 4, 5), int), "not written as .jpg"),
        ("a.mhd", np.zeros((3, 4, 5), int), "not written as .mhd"),
        ("a.png", np.zeros((3, 4, 5), int), "cannot hold 3 axes"),
        ("a.doc", np.zeros((3, 4, 5), int), "unknown image format"),
        ("a.nii.gz", np.zeros((3, 4, 6), int), r"got \(3, 4, 6\)"),
        ("a.nii.gz", np.zeros((3, 4, 5)), "expected integers"),
        ("a.nii.gz", np.full((3, 4, 5), 256), "got values from 256 to 256"),
        ("no/folder/a.nii.gz", np.zeros((3, 4, 5), int), "a.nii.gz"),
    ],
)
def test_unsuitable_files_and_label_maps_are_refused(tmp_path, name, labels, words):
    with pytest.raises(InputError, match=words):
        write_label_map(tmp_path / name, labels, like=VOLUME)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, rng):
    path = tmp_path / "a.nii.gz"
    labels = rng.integers(0, 4, VOLUME.shape, dtype=np.uint8)
    write_label_map(path, labels, like=VOLUME)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scanseg.imaging.writing.write_nifti", fail)
    with pytest.raises(KeyboardInterrupt):
        write_label_map(path, labels * 0, like=VOLUME)
    np.testing.assert_array_equal(read_label_map(path).array[0], labels)
    assert len(list(tmp_path.iterdir())) == 1


def test_probabilities_come_back_in_half_precision(tmp_path, rng):
    probabilities = rng.uniform(size=(3, *VOLUME.shape)).astype(np.float32)
    write_probabilities(tmp_path / "a.npz", probabilities, like=VOLUME)
    with np.load(tmp_path / "a.npz") as stored:
        np.testing.assert_array_equal(stored["probabilities"], probabilities.astype(np.float16))
    with pytest.raises(InputError, match="npz"):
        write_probabilities(tmp_path / "a.nii.gz", probabilities, like=VOLUME)
    with pytest.raises(InputError, match="shape"):
        write_probabilities(tmp_path / "a.npz", probabilities[..., :-1], like=VOLUME)


def test_colours_of_a_label_map_show_each_label_and_keep_the_numbers(tmp_path):
    import PIL.Image

    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_colours(tmp_path / "a.png", labels, like=image_of(labels[np.newaxis]))
    with PIL.Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)
        shown = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert shown[0].tolist() == [0, 0, 0]
    assert shown[1].tolist() == [0x00, 0x72, 0xB2]
    assert len(np.unique(shown[:36], axis=0)) == 36
    assert shown[1:].max(axis=1).min() > 60
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], labels)


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.nrrd", "a.mha", "a.tif"])
def test_a_missing_folder_is_named(tmp_path, name):
    labels = np.zeros((4, 5), np.uint8)
    with pytest.raises(InputError, match=r"expected a folder at .*absent, got none. Create it first"):
        write_label_map(tmp_path / "absent" / name, labels, like=image_of(labels[np.newaxis]))
