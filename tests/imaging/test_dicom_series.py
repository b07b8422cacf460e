"""DICOM series: order, spacing, values, and series that are refused by name."""

import random
import shutil

import numpy as np
import pytest
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scanseg.errors import InputError
from scanseg.imaging import files_of, list_series, read_geometry, read_image
from tests.dicom_series import SERIES, make_series, make_slice, save, write_series

VOLUME = np.random.default_rng(0).integers(0, 3000, (5, 6, 7)).astype(np.int16)


def write(folder, datasets):
    for number, dataset in enumerate(datasets):
        save(dataset, folder / f"IM{number}")
    return folder


def refused(folder, text):
    """Check that a folder cannot be read, with and without its voxels."""
    for read in (read_image, lambda path: read_geometry([path])):
        with pytest.raises(InputError, match=text) as caught:
            read(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_of_any_names_are_in_the_order_of_their_positions(tmp_path):
    names = [f"{number}.bin" for number in range(5)]
    random.Random(3).shuffle(names)
    options = {"origin": (-10, 20, 5.5), "spacing": (2.5, 0.5, 0.75)}
    image = read_image(write_series(tmp_path, VOLUME, names=names, reverse=True, **options))
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert image.array.dtype == np.int16
    assert (image.spacing, image.origin) == ((2.5, 0.5, 0.75), (-10, 20, 5.5))
    assert image.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert image.warnings == ()
    header = read_geometry([tmp_path])
    assert (header.shape, header.spacing, header.origin) == (image.shape, image.spacing, image.origin)
    assert not any(header.array.strides)
    assert sorted(files_of(tmp_path)) == sorted(tmp_path.iterdir())


def test_slope_and_intercept_of_each_slice(tmp_path):
    datasets = make_series(VOLUME, RescaleIntercept="-1024", RescaleSlope="2", BitsStored=13)
    datasets[1].RescaleSlope, datasets[1].RescaleIntercept = "3", "-5"
    image = read_image(write(tmp_path, datasets))
    expected = VOLUME.astype(np.int32) * 2 - 1024
    expected[1] = VOLUME[1].astype(np.int32) * 3 - 5
    np.testing.assert_array_equal(image.array[0], expected)
    assert image.array.dtype.kind == "i"


def test_fractions_become_float32(tmp_path):
    image = read_image(write_series(tmp_path, VOLUME, RescaleSlope="0.25", RescaleIntercept="0.5"))
    np.testing.assert_array_equal(image.array[0], (VOLUME * 0.25 + 0.5).astype(np.float32))
    assert image.array.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32])
def test_stored_types(tmp_path, dtype):
    limits = np.iinfo(dtype)
    volume = np.array([limits.min, 0, 1, limits.max], dtype).reshape(1, 2, 2).repeat(2, axis=0)
    if dtype == np.uint32:
        volume //= 2
    fields = {"BitsStored": 31} if dtype == np.uint32 else {}
    np.testing.assert_array_equal(read_image(write_series(tmp_path, volume, **fields)).array[0], volume)


@pytest.mark.parametrize("fields", [{"BitsStored": 40000}, {"BitsAllocated": 12}, {"BitsStored": 17}])
def test_sizes_of_values_that_cannot_be_read(tmp_path, fields):
    refused(write_series(tmp_path, VOLUME[:1], **fields), r"got a damaged one \(\d+ of \d+ bits\)")


def test_jpeg_ls(tmp_path):
    for number, dataset in enumerate(make_series(np.abs(VOLUME).astype(np.uint16))):
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        save(dataset, tmp_path / f"{number}")
    np.testing.assert_array_equal(read_image(tmp_path).array[0], VOLUME)


def test_implicit_encoding_and_rle(tmp_path):
    for number, dataset in enumerate(make_series(VOLUME)):
        save(dataset, tmp_path / f"implicit/{number}", implicit=True)
    for number, dataset in enumerate(make_series(VOLUME)):
        dataset.compress(RLELossless, generate_instance_uid=False)
        save(dataset, tmp_path / f"rle/{number}")
    for kind in ("implicit", "rle"):
        np.testing.assert_array_equal(read_image(tmp_path / kind).array[0], VOLUME)


def test_a_compression_without_decoder(tmp_path):
    datasets = make_series(VOLUME)
    for dataset in datasets:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    folder = write(tmp_path / "a", datasets)
    refused(folder, r"transfer syntax JPEG Lossless.*pip install python-gdcm.*\(5 of 5 files\)")
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    refused(
        write(tmp_path / "b", datasets), r"got the transfer syntax MPEG2 .*1\.2\.840\.10008\.1\.2\.4\.100"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, r"got a localizer \(5 of 5 images\)"),
        ({"NumberOfFrames": 2}, "got a multi-frame object.*dcm2niix"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, r"got colours \(RGB\)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"got colours \(PALETTE COLOR\)"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "got MONOCHROME1"),
        (
            {"ImagePositionPatient": None},
            r"valid position \(ImagePositionPatient\).*Projections have no position",
        ),
        ({"ImageOrientationPatient": None}, "valid orientation"),
        ({"PixelSpacing": None}, "valid pixel spacing"),
        ({"PixelSpacing": [0, 1]}, "spacings above 0"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.5, 0]}, "direction cosines of length 1"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "right angles"),
    ],
)
def test_objects_that_are_no_slices(tmp_path, fields, text):
    refused(write_series(tmp_path, VOLUME, **fields), text)


def test_deflated_objects_are_refused(tmp_path):
    folder = write_series(tmp_path, VOLUME)
    dataset = make_slice(VOLUME[0], (0, 0, 0))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(dataset, folder / "IM0000")
    refused(folder, r"IM0000: .* got a deflated one\. Convert it")


def test_a_lookup_table_is_refused(tmp_path):
    from pydicom import Dataset

    refused(write_series(tmp_path, VOLUME, ModalityLUTSequence=[Dataset()]), "got a modality lookup table")


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("PatientID", "P2", "slices of one patient, got several"),
        ("StudyInstanceUID", "1.2.3", "slices of one study"),
        ("FrameOfReferenceUID", "1.2.3", "slices of one frame of reference"),
        ("PixelSpacing", [0.6, 0.75], "one pixel spacing"),
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], "mixed orientations"),
        ("ImageType", ["DERIVED", "SECONDARY", "LOCALIZER"], r"got a localizer \(1 of 5 images\)"),
    ],
)
def test_mixtures(tmp_path, keyword, value, text):
    datasets = make_series(VOLUME)
    setattr(datasets[2], keyword, value)
    refused(write(tmp_path, datasets), text)


def test_slices_of_two_sizes(tmp_path):
    datasets = [*make_series(VOLUME)[:4], make_slice(VOLUME[4, :5], (0, 0, 12), number=5)]
    refused(write(tmp_path, datasets), r"one size, got 6 x 7 in 4, 5 x 7 in 1")


def test_missing_slices_are_named(tmp_path):
    datasets = make_series(np.zeros((9, 4, 4), np.int16))
    del datasets[4], datasets[5]
    folder = write(tmp_path, datasets)
    refused(folder, r"a slice every 3 mm, got 2 missing slices, between IM3 and IM4, IM4 and IM5")


def test_several_slices_at_one_place(tmp_path):
    datasets = [*make_series(VOLUME), make_slice(VOLUME[0], (0, 0, 6), number=9)]
    refused(write(tmp_path, datasets), "one slice at each place, got 1 more")
    phases = [make_slice(VOLUME[0], (0, 0, 0), number=number) for number in range(1, 4)]
    refused(write(tmp_path / "phases", phases), "got 2 more at places of others")


def test_copies_of_an_instance_are_left_out(tmp_path):
    folder = write_series(tmp_path, VOLUME)
    shutil.copy(folder / "IM0002", folder / "copy")
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert "1 copy of instances left out: copy" in image.warnings[0] or "IM0002" in image.warnings[0]
    other = make_slice(VOLUME[0], (0, 0, 99), number=3)
    save(other, folder / "other")
    refused(folder, "expected a UID of its own for each instance")


def test_distances_that_differ(tmp_path):
    places = [0, 1, 2.35, 3, 4]
    datasets = [
        make_slice(VOLUME[index], (0, 0, place), number=index + 1) for index, place in enumerate(places)
    ]
    refused(write(tmp_path / "a", datasets), r"equal distances, got distances of 0\.65 to 1\.35 mm")
    places[2] = 2.05
    datasets[2].ImagePositionPatient = [0, 0, places[2]]
    image = read_image(write(tmp_path / "b", datasets))
    assert image.spacing[0] == pytest.approx(1)
    assert "0.05 voxels beside their regular place" in image.warnings[0]


def test_slices_that_shift_sideways(tmp_path):
    datasets = make_series(VOLUME)
    datasets[2].ImagePositionPatient = [0.4, 0, 6]
    refused(write(tmp_path, datasets), "slices at equal distances")


@pytest.mark.parametrize(("degrees", "reads"), [(0.005, True), (0.5, True), (15, False)])
def test_a_tilted_gantry(tmp_path, degrees, reads):
    shift = 3 * np.tan(np.deg2rad(degrees))
    datasets = [
        make_slice(pixels, (0, index * shift, index * 3), number=index + 1)
        for index, pixels in enumerate(VOLUME)
    ]
    folder = write(tmp_path, datasets)
    if not reads:
        refused(folder, "right angles, got axes that are 15 degrees off.*tilted gantry")
        return
    warnings = read_image(folder).warnings
    assert len(warnings) == (degrees > 0.01)
    assert all("nearest right angles" in warning for warning in warnings)


def test_one_slice_is_as_thick_as_stated(tmp_path):
    refused(write_series(tmp_path / "a", VOLUME[:1]), "several slices, got one without thickness")
    image = read_image(write_series(tmp_path / "b", VOLUME[:1], SliceThickness="4"))
    assert image.spacing == (4, 0.5, 0.75)
    assert "Its thickness of 4 mm" in image.warnings[0]


def test_several_series_in_one_folder(tmp_path):
    write_series(tmp_path / "one", VOLUME)
    write_series(tmp_path / "two", VOLUME + 1, series=f"{SERIES}9", SeriesDescription="other")
    save(
        make_slice(VOLUME[0], (0, 0, 0), series="1.2.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        tmp_path / "x",
    )
    refused(tmp_path, rf"expected one series, got 3 series\. Give one of .*1\.2\.5, .*{SERIES}, .*{SERIES}9")
    np.testing.assert_array_equal(read_image(tmp_path / f"{SERIES}9").array[0], VOLUME + 1)
    np.testing.assert_array_equal(read_image(tmp_path / SERIES).array[0], VOLUME)
    refused(tmp_path / "1.2.5", "got a localizer")
    with pytest.raises(
        InputError, match=rf"{tmp_path}: expected a series of UID 9\.9, got 1\.2\.5, {SERIES}"
    ):
        read_image(tmp_path / "9.9")
    assert len(files_of(tmp_path / SERIES)) == 5


def test_a_localizer_beside_a_series_needs_no_choice(tmp_path):
    write_series(tmp_path, VOLUME)
    save(
        make_slice(VOLUME[0], (0, 0, 0), series="1.2.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        tmp_path / "x",
    )
    np.testing.assert_array_equal(read_image(tmp_path).array[0], VOLUME)


def test_other_objects_and_files_are_left_out(tmp_path):
    write_series(tmp_path, VOLUME)
    save(
        make_slice(VOLUME[0], (0, 0, 0), series="1.2", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"),
        tmp_path / "seg",
    )
    save(
        make_slice(VOLUME[0], (0, 0, 0), series="1.3", SOPClassUID="1.2.840.10008.1.3.10"),
        tmp_path / "DICOMDIR",
    )
    (tmp_path / "README").write_text("no image")
    (tmp_path / ".hidden.dcm").write_text("no image")
    found = list_series(tmp_path)
    assert [series.uid for series in found.series] == [SERIES]
    assert found.others == ("1 Segmentation Storage",)
    assert found.faults == ()


def test_a_folder_without_series_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a file, and no folder or zip file with a DICOM series"):
        read_image(tmp_path)
    save(make_slice(VOLUME[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), tmp_path / "seg")
    with pytest.raises(InputError, match="expected a DICOM series of images, got 1 Segmentation Storage"):
        read_image(tmp_path)


def test_changed_files_are_read_again(tmp_path):
    write_series(tmp_path, VOLUME)
    assert read_image(tmp_path).shape == (5, 6, 7)
    (tmp_path / "IM0004").unlink()
    assert read_image(tmp_path).shape == (4, 6, 7)
