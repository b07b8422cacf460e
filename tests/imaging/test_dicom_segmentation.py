"""DICOM Segmentations: voxels, references, patient, study, segments, codes and colours."""

import zipfile

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

import scanseg
from scanseg.errors import InputError
from scanseg.imaging import list_series, make_segments, read_image, write_segmentation
from scanseg.specs import SegmentCodes
from tests.dicom_series import FRAME, SERIES, STUDY, write_series

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 3000, (5, 6, 7)).astype(np.int16)
LABEL_MAP = RNG.integers(0, 4, VOLUME.shape).astype(np.uint8)
LABELS = {"liver": (1,), "spleen": (2,), "left kidney": (3,)}
CODES = """{"segments": {"liver": {"type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}},
"spleen": {"type": {"value": "4147007", "scheme": "SCT", "meaning": "Mass"},
           "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"}}}}"""


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", VOLUME, reverse=True, StudyDescription="abdomen")


@pytest.fixture
def write(series, tmp_path):
    def write(label_map=LABEL_MAP, labels=LABELS, codes=None):
        segments = make_segments(labels, codes)
        path = tmp_path / "out.dcm"
        write_segmentation(path, label_map, like=read_image(series), segments=segments)
        return dcmread(path)

    return write


def frames_of(segmentation):
    """Return the label of each voxel of a segmentation of the series, from its frames and their references."""
    found = np.zeros(VOLUME.shape, np.uint8)
    pixels = segmentation.pixel_array.reshape(-1, *VOLUME.shape[1:])
    for frame, group in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        instance = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        z = len(VOLUME) - int(instance.rpartition(".")[2])
        assert group.PlanePositionSequence[0].ImagePositionPatient[2] == 3 * z
        found[z][frame > 0] = number
    return found


def test_voxels_come_back(write, tmp_path):
    segmentation = write()
    np.testing.assert_array_equal(frames_of(segmentation), LABEL_MAP)
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True)
    np.testing.assert_array_equal(volume.array[::-1], LABEL_MAP)


def test_references_patient_and_study(write):
    segmentation = write()
    assert segmentation.SegmentationType == "BINARY"
    assert (segmentation.StudyInstanceUID, segmentation.FrameOfReferenceUID) == (STUDY, FRAME)
    assert segmentation.SeriesInstanceUID != SERIES
    assert (segmentation.PatientID, str(segmentation.PatientName)) == ("P1", "Doe^Jane")
    assert (segmentation.PatientBirthDate, segmentation.PatientSex) == ("19700101", "F")
    assert (segmentation.StudyDate, segmentation.AccessionNumber) == ("20260102", "A1")
    assert segmentation.StudyDescription == "abdomen"
    (referenced,) = segmentation.ReferencedSeriesSequence
    instances = [item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence]
    assert referenced.SeriesInstanceUID == SERIES
    assert sorted(instances) == [f"{SERIES}.{number}" for number in range(1, 6)]


def test_segments_have_names_codes_and_the_colours_of_labels(write, tmp_path):
    (tmp_path / "codes.json").write_text(CODES)
    liver, spleen, kidney = write(codes=SegmentCodes.read(tmp_path / "codes.json")).SegmentSequence
    assert [each.SegmentLabel for each in (liver, spleen, kidney)] == list(LABELS)
    assert [each.SegmentNumber for each in (liver, spleen, kidney)] == [1, 2, 3]
    assert [
        (
            each.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning,
            each.SegmentedPropertyTypeCodeSequence[0].CodeValue,
        )
        for each in (liver, spleen, kidney)
    ] == [
        ("Anatomical Structure", "10200004"),
        ("Morphologically Abnormal Structure", "4147007"),
        ("Tissue", "85756007"),
    ]
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    colour = highdicom.color.CIELabColor.from_dicom_value(
        tuple(spleen.RecommendedDisplayCIELabValue)
    ).to_rgb()
    np.testing.assert_allclose(colour, (0xE6, 0x9F, 0x00), atol=2)


def test_slices_without_labels_have_no_frame(write):
    label_map = np.where(np.arange(5)[:, None, None] == 2, LABEL_MAP, 0).astype(np.uint8)
    segmentation = write(label_map)
    assert segmentation.NumberOfFrames == 3
    np.testing.assert_array_equal(frames_of(segmentation), label_map)


def test_an_empty_label_map_has_all_segments(write):
    segmentation = write(np.zeros_like(LABEL_MAP))
    assert len(segmentation.SegmentSequence) == 3
    assert not segmentation.pixel_array.any()


def test_regions_overlap(write):
    segmentation = write(labels={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)})
    assert segmentation.SegmentsOverlap == "YES"
    pixels = segmentation.pixel_array
    masks = {1: np.zeros(VOLUME.shape), 2: np.zeros(VOLUME.shape), 3: np.zeros(VOLUME.shape)}
    for frame, group in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        z = round(group.PlanePositionSequence[0].ImagePositionPatient[2] / 3)
        masks[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber][z] = frame
    for number, values in ((1, (1, 2, 3)), (2, (2, 3)), (3, (3,))):
        np.testing.assert_array_equal(masks[number], np.isin(LABEL_MAP, values))


def test_missing_attributes_of_patients_are_empty(tmp_path):
    removed = dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"))
    folder = write_series(tmp_path / "series", VOLUME, **removed)
    scanseg.write_segmentation(tmp_path / "a.dcm", LABEL_MAP, series=folder, labels=LABELS)
    segmentation = dcmread(tmp_path / "a.dcm")
    assert (segmentation.PatientBirthDate, segmentation.PatientID) == ("", "P1")
    np.testing.assert_array_equal(read_image(folder).array[0], VOLUME)


def test_a_series_without_frame_of_reference(tmp_path):
    folder = write_series(tmp_path / "series", VOLUME, FrameOfReferenceUID=None)
    with pytest.raises(InputError, match="UIDs of the study and of its frame of reference, got none"):
        scanseg.write_segmentation(tmp_path / "a.dcm", LABEL_MAP, series=folder, labels=LABELS)


def test_a_series_of_a_zip_file_and_the_segmentation_beside_it(series, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in series.iterdir():
            archive.write(file, file.name)
    scanseg.write_segmentation(
        tmp_path / "a.dcm", LABEL_MAP, series=tmp_path / "a.zip", labels={"a": 1, "b": [2, 3]}
    )
    expected = np.where(LABEL_MAP > 1, 2, LABEL_MAP)
    np.testing.assert_array_equal(frames_of(dcmread(tmp_path / "a.dcm")), expected)
    assert list_series(tmp_path).others == ("1 Segmentation Storage",)


@pytest.mark.parametrize(
    ("label_map", "labels", "text"),
    [
        (LABEL_MAP[1:], LABELS, r"in the shape \(5, 6, 7\) of the series, got \(4, 6, 7\)"),
        (LABEL_MAP, {"liver": (1,)}, r"a segment for each label value, got none for \[2, 3\]"),
        (LABEL_MAP.astype(float), LABELS, "expected integers"),
        (LABEL_MAP, {"x" * 65: (1, 2, 3)}, "1 to 64 characters"),
        (LABEL_MAP, {"a\\b": (1, 2, 3)}, "without a backslash"),
    ],
)
def test_label_maps_that_do_not_fit(series, tmp_path, label_map, labels, text):
    with pytest.raises(InputError, match=text):
        scanseg.write_segmentation(tmp_path / "a.dcm", label_map, series=series, labels=labels)
    assert not (tmp_path / "a.dcm").exists()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "unknown"),
        ("StudyTime", "noon"),
        ("SpecificCharacterSet", "ISO_IR 999"),
        ("SOPClassUID", "1.2"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_values_of_the_series_that_are_invalid(tmp_path, keyword, value):
    series = write_series(tmp_path / "series", VOLUME, **{keyword: value})
    with pytest.raises(
        InputError, match=r"headers of .*series that a segmentation can copy, got an invalid value"
    ):
        scanseg.write_segmentation(tmp_path / "a.dcm", LABEL_MAP, series=series, labels=LABELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series"]


def test_slices_that_are_too_small(tmp_path):
    series = write_series(tmp_path / "series", VOLUME[:, :1])
    with pytest.raises(InputError, match="slices of at least 8 pixels, got 7"):
        scanseg.write_segmentation(tmp_path / "a.dcm", LABEL_MAP[:, :1], series=series, labels=LABELS)


@pytest.mark.parametrize("columns", [2, 3, 4, 5, 7])
def test_slices_that_do_not_fill_bytes(tmp_path, columns):
    series = write_series(tmp_path / "series", VOLUME[:, :4, :columns])
    expected = LABEL_MAP[:, :4, :columns]
    scanseg.write_segmentation(tmp_path / "a.dcm", expected, series=series, labels=LABELS)
    volume = highdicom.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    np.testing.assert_array_equal(volume.array[::-1], expected)


def test_codes_of_unknown_labels_and_changed_series(series, tmp_path):
    codes = SegmentCodes.model_validate_json(CODES)
    with pytest.raises(InputError, match="expected names among liver, got spleen"):
        make_segments({"liver": (1,)}, codes)
    image = read_image(series)
    (series / "IM0004").unlink()
    with pytest.raises(InputError, match="expected the series that was segmented, got changed files"):
        write_segmentation(tmp_path / "a.dcm", LABEL_MAP, like=image, segments=make_segments(LABELS))
    with pytest.raises(InputError, match="expected a DICOM series, got another image"):
        scanseg.write_segmentation(tmp_path / "a.dcm", LABEL_MAP, series=tmp_path / "a.png", labels=LABELS)
