"""Without pydicom, DICOM is not read, and its files are named with the ways to read or convert them."""

import numpy as np
import pytest
import SimpleITK

from scanseg.dataset import find_cases_of_files
from scanseg.errors import InputError
from scanseg.imaging import find_dicom, read_geometry, read_image, require_writer
from tests.factories import find_cases, write_volume

CONTENT = b"\0" * 128 + b"DICM" + b"\2\0"


@pytest.fixture
def without_reader(monkeypatch):
    """Pretend that pydicom and highdicom are not installed."""
    monkeypatch.setattr("scanseg.imaging.dicom.recognition.find_spec", lambda name: None)
    monkeypatch.setattr("scanseg.imaging.dicom.segmentation.find_spec", lambda name: None)


@pytest.mark.usefixtures("without_reader")
@pytest.mark.parametrize(
    "name", ["IM0001", "1.2.840", "scan.dcm", "SCAN.DCM", "a.IMA", "study/series/IM0001"]
)
def test_a_folder_of_dicom(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    (tmp_path / "README").write_text("no image" * 40)
    with pytest.raises(
        InputError,
        match=rf'got DICOM files such as {name}\. Install .*"scanseg\[dicom\]", or convert each .*dcm2niix',
    ):
        find_cases(tmp_path, file_ending=".nii.gz", num_channels=1)
    assert find_dicom(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("without_reader")
def test_a_series_without_its_reader(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/IM1").write_bytes(CONTENT)
    with pytest.raises(
        InputError, match=r'got DICOM\. Install .* pip install "scanseg\[dicom\]", or convert'
    ):
        read_image(tmp_path / "a")
    with pytest.raises(InputError, match=r'Install it by pip install "scanseg\[dicom\]"'):
        require_writer()


@pytest.mark.parametrize("name", ["IM0001", "scan.dcm", "1.2.840.1"])
def test_a_file_of_dicom(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTENT)
    for read in (read_image, lambda file: find_cases_of_files([file], num_channels=1)):
        with pytest.raises(
            InputError, match=r"expected an image file, got DICOM\. Give the folder .*dcm2niix"
        ):
            read(path)


def test_other_files_are_no_dicom(tmp_path):
    for name, content in (("a", b""), ("b", b"DICM"), ("c.nii", b"\0" * 400), (".hidden.dcm", CONTENT)):
        (tmp_path / name).write_bytes(content)
    assert find_dicom(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_the_geometry_of_a_header_is_that_of_the_image(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    turned = (0, -1, 0, 1, 0, 0, 0, 0, 1)
    write_volume(path, np.ones((4, 5, 6), np.int16), (3, 0.5, 0.75), origin=(1, 2, 3), direction=turned)
    header, image = read_geometry([path, path]), read_image(path)
    assert header.shape == image.shape
    assert (header.spacing, header.origin, header.direction) == (image.spacing, image.origin, image.direction)
    assert header.num_channels == 2
    assert not any(header.array.strides)


def test_the_geometry_of_several_channels_in_one_file(tmp_path):
    vector = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.float32), isVector=True)
    SimpleITK.WriteImage(vector, str(tmp_path / "a.nrrd"))
    assert read_geometry([tmp_path / "a.nrrd"]).num_channels == 3
    assert read_geometry([tmp_path / "a.png"]) is None
