"""Images in memory are segmented like their files."""

import io

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image as Picture

from scanseg.errors import InputError, UsageError
from tests.factories import write_volume


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "scan_0000.nii.gz"
    array = np.zeros((5, 8, 9), np.float32)
    array[1:3, 2:5, 4:] = 1
    write_volume(path, array, (2.0, 1.0, 0.5))
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    array = np.zeros((9, 12, 3), np.uint8)
    array[2:6, 1:4] = 255
    Picture.fromarray(array).save(path)
    return path


@pytest.fixture
def for_pictures(make_predictor):
    return make_predictor(
        num_axes=2,
        patch_size=(8, 8),
        dataset={"channel_names": ("R", "G", "B"), "file_ending": ".png"},
    )


def open_itk(path):
    return SimpleITK.ReadImage(str(path))


FORMS = {
    "bytes": lambda path: path.read_bytes(),
    "file object": lambda path: io.BytesIO(path.read_bytes()),
    "SimpleITK": open_itk,
    "nibabel": nibabel.load,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_volume_in_memory_gives_the_result_of_its_file(make_predictor, volume, form):
    predictor = make_predictor()
    expected = predictor.predict(volume)
    prediction = predictor.predict(FORMS[form](volume))
    assert expected.label_map.any()
    assert not expected.label_map.all()
    np.testing.assert_array_equal(prediction.label_map, expected.label_map)
    np.testing.assert_array_equal(prediction.image.array, expected.image.array)
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(
            getattr(prediction.image, name), getattr(expected.image, name), rtol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii", ".tif"])
def test_the_format_of_bytes_is_recognized(make_predictor, volume, tmp_path, ending):
    path = tmp_path / f"other{ending}"
    SimpleITK.WriteImage(open_itk(volume), str(path))
    predictor = make_predictor()
    expected = predictor.predict(volume).label_map
    np.testing.assert_array_equal(predictor.predict(path.read_bytes()).label_map, expected)


def test_nibabel_keeps_scaled_values(make_predictor, tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    array = np.random.default_rng(0).random((9, 8, 5))
    nibabel.Nifti1Image(array, np.diag((0.5, 1, 2, 1)), header).to_filename(tmp_path / "scan.nii.gz")
    predictor = make_predictor()
    image = nibabel.load(tmp_path / "scan.nii.gz")
    read = predictor.predict(image).image
    np.testing.assert_allclose(read.array[0], np.asarray(image.dataobj).T, rtol=1e-6)
    expected = predictor.predict(tmp_path / "scan.nii.gz").image
    np.testing.assert_allclose(read.array, expected.array, rtol=1e-6)


@pytest.mark.parametrize("form", ["bytes", "PIL", "array", "jpeg with orientation"])
def test_a_picture_in_memory_gives_the_result_of_its_file(for_pictures, picture, form, tmp_path):
    source = {
        "bytes": lambda: picture.read_bytes(),
        "PIL": lambda: Picture.open(picture),
        "array": lambda: np.asarray(Picture.open(picture)),
        "jpeg with orientation": lambda: Picture.open(picture),
    }[form]()
    file = picture
    if form.startswith("jpeg"):
        tag = Picture.Exif()
        tag[0x0112] = 6
        file = tmp_path / "turned.jpg"
        source.save(file, exif=tag, quality=100)
        source = Picture.open(file)
    expected = for_pictures.predict(file).label_map
    assert expected.any()
    np.testing.assert_array_equal(for_pictures.predict(source).label_map, expected)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "F", "RGBA"])
def test_modes_of_pillow(make_predictor, tmp_path, mode):
    array = np.zeros((9, 12), np.uint8)
    array[2:6, 1:4] = 255
    channels = 3 if mode in ("P", "RGBA") else 1
    predictor = make_predictor(
        num_axes=2,
        patch_size=(8, 8),
        dataset={"channel_names": ("a", "b", "c")[:channels], "file_ending": ".png"},
    )
    picture = (
        Picture.fromarray(array).convert("I").convert(mode)
        if mode == "I;16"
        else Picture.fromarray(array).convert(mode)
    )
    np.testing.assert_array_equal(predictor.predict(picture).label_map, array > 0)


def test_an_array_with_both_axes_of_that_size_has_its_channels_first(for_pictures):
    array = np.zeros((3, 8, 3), np.float32)
    array[1] = 1
    assert for_pictures.predict(array).label_map.shape == (8, 3)


def test_faults_in_memory_are_named_without_a_temporary_path(make_predictor, volume):
    predictor = make_predictor()
    with pytest.raises(
        InputError, match=r"expected the content of a NIfTI.*got 9 bytes that begin with b'image\.ni'"
    ):
        predictor.predict(b"image.nii")
    with pytest.raises(InputError, match=r"^the image: ") as raised:
        predictor.predict(volume.read_bytes()[:-40])
    assert "tmp" not in str(raised.value)
    with pytest.raises(
        UsageError, match=r"expected a file object of bytes, got one of str\. Open the file with 'rb'"
    ):
        predictor.predict(io.StringIO("text"))
    with pytest.raises(UsageError, match=r"spacing: expected none for files and images"):
        predictor.predict(volume.read_bytes(), spacing=(1, 1, 1))
