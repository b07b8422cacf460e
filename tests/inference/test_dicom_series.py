"""DICOM series are predicted from folders and zip files, to any format."""

import json
import os
import zipfile

import numpy as np
import pytest
from pydicom import dcmread

from scanseg.cli import options
from scanseg.errors import InputError, UsageError
from scanseg.imaging import read_image, read_label_map
from scanseg.inference.outputs import OutputFormat
from tests.dicom_series import SERIES, make_slice, save, write_series
from tests.factories import write_labels, write_picture

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 2, (5, 6, 7)).astype(np.int16)
OTHER = 1 - VOLUME
LOCALIZER = {"series": "1.2.5", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def pack(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("IM*")):
            archive.write(file, file.relative_to(folder))
    return path


def check_map(path, volume):
    np.testing.assert_array_equal(read_label_map(path).array[0], volume)


def test_the_folder_of_a_series(make_predictor, tmp_path):
    series = write_series(tmp_path / "anna", VOLUME)
    record = make_predictor().predict_folder(series, tmp_path / "out")
    check_map(tmp_path / "out/anna.nii.gz", VOLUME)
    (case,) = record.cases
    assert (case.case, case.images, case.series_uids) == ("anna", (str(series),), (SERIES,))
    assert sorted(source.name for source in case.sources) == sorted(path.name for path in series.iterdir())
    np.testing.assert_array_equal(make_predictor().predict(series).label_map, VOLUME)
    np.testing.assert_array_equal(make_predictor().predict(str(series)).label_map, VOLUME)


def test_a_folder_of_series_and_other_images(make_predictor, tmp_path):
    images = tmp_path / "images"
    write_series(images / "anna_0000/study/series", VOLUME)
    pack(write_series(tmp_path / "bob", OTHER, series="1.2.3"), images / "bob.zip")
    write_labels(images / "carl_0000.nii.gz", VOLUME.astype(np.uint8))
    (images / "empty").mkdir()
    (images / "notes.txt").write_text("text")
    record = make_predictor().predict_folder(images, tmp_path / "out")
    assert [case.case for case in record.cases] == ["anna", "bob", "carl"]
    assert [case.series_uids for case in record.cases] == [(SERIES,), ("1.2.3",), None]
    for name, volume in (("anna", VOLUME), ("bob", OTHER), ("carl", VOLUME)):
        check_map(tmp_path / f"out/{name}.nii.gz", volume)
    assert record.warnings[0].startswith(f"{images}: 1 file skipped (1 in .txt)")


def test_several_series_in_one_folder(make_predictor, tmp_path):
    study = tmp_path / "study"
    write_series(study / "a", VOLUME)
    write_series(study / "b", OTHER, series=f"{SERIES}9")
    save(make_slice(VOLUME[0], (0, 0, 0), **LOCALIZER), study / "loose")
    record = make_predictor().predict_folder(study, tmp_path / "out")
    assert [case.case for case in record.cases] == [f"study_{SERIES}", f"study_{SERIES}9"]
    assert "1 kind of DICOM left out: series 1.2.5 (localizer)" in record.warnings[0]
    check_map(tmp_path / f"out/study_{SERIES}9.nii.gz", OTHER)

    record = make_predictor().predict_folder(study / f"{SERIES}9", tmp_path / "one")
    assert [case.series_uids for case in record.cases] == [(f"{SERIES}9",)]


@pytest.mark.parametrize("packed", [False, True])
def test_series_are_chosen_by_the_beginning_of_their_uid(make_predictor, tmp_path, packed):
    study = tmp_path / "study"
    write_series(study / "a", VOLUME, series="1.2.77")
    write_series(study / "b", OTHER, series="1.3.88")
    source = pack(study, tmp_path / "study.zip") if packed else study
    predict = make_predictor().predict_folder
    record = predict(source, tmp_path / "out", series="1.3")
    assert [case.series_uids for case in record.cases] == [("1.3.88",)]
    check_map(tmp_path / "out" / str(record.cases[0].label_map), OTHER)
    assert len(predict(source, tmp_path / "both", series=["1.2.77", "1.3.88"]).cases) == 2
    for uid, text in (
        ("1.", r"one series of UID 1\., got 1\.2\.77"),
        ("9", "a series of UID 9, got 1.2.77, 1.3.88"),
    ):
        with pytest.raises(InputError, match=text):
            predict(source, tmp_path / "none", series=uid)
    write_labels(tmp_path / "a.nii.gz", VOLUME.astype(np.uint8))
    with pytest.raises(
        UsageError, match=r"--series: expected folders or zip files of DICOM series, got .*a\.nii\.gz"
    ):
        predict(tmp_path / "a.nii.gz", tmp_path / "none", series="1.2")
    assert not (tmp_path / "none").exists()


def test_channels_are_folders_by_number(make_predictor, tmp_path):
    predictor = make_predictor(dataset={"channel_names": ("T1", "T2")})
    write_series(tmp_path / "in/a_0000", VOLUME)
    write_series(tmp_path / "in/a_0001", OTHER, series="1.2.3")
    record = predictor.predict_folder(tmp_path / "in", tmp_path / "out")
    assert [case.series_uids for case in record.cases] == [(SERIES, "1.2.3")]
    write_series(tmp_path / "in/b_0000", VOLUME, series="1.2.4")
    with pytest.raises(InputError, match=r"case b: missing b_0001"):
        predictor.predict_folder(tmp_path / "in", tmp_path / "again")


def test_a_segmentation_is_written(make_predictor, tmp_path):
    write_series(tmp_path / "in/a", VOLUME)
    write_series(tmp_path / "in/b", np.zeros_like(VOLUME), series="1.2.3")
    predictor = make_predictor(dataset={"labels": {"background": 0, "bright": 1}})
    record = predictor.predict_folder(
        tmp_path / "in", tmp_path / "out", format="dicom-seg", uncertainty=True, probabilities=True
    )
    assert [(case.label_map, case.entropy) for case in record.cases] == [
        ("a.dcm", "entropy/a.nii.gz"),
        ("b.dcm", "entropy/b.nii.gz"),
    ]
    segmentation = dcmread(tmp_path / "out/a.dcm")
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["bright"]
    np.testing.assert_array_equal(segmentation.pixel_array[::-1], VOLUME)
    assert f"digest={record.model_digest}" in str(segmentation.SegmentSequence[0])


@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha", "nii.gz"])
def test_other_formats(make_predictor, tmp_path, ending):
    write_series(tmp_path / "in/a", VOLUME, origin=(1, 2, 3))
    write_labels(tmp_path / "in/b.nii.gz", VOLUME.astype(np.uint8))
    make_predictor().predict_folder(tmp_path / "in", tmp_path / "out", format=ending)
    image, label_map = read_image(tmp_path / "in/a"), read_image(tmp_path / f"out/a.{ending}")
    assert label_map.spacing == pytest.approx(image.spacing)
    assert (label_map.origin, label_map.direction) == (image.origin, image.direction)
    check_map(tmp_path / f"out/b.{ending}", VOLUME)


def test_pictures_in_another_format(make_predictor, tmp_path):
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset={"file_ending": ".png"})
    picture = RNG.integers(0, 2, (6, 7))
    write_picture(tmp_path / "in/a.png", picture)
    for ending in ("nii.gz", "tif", "png"):
        predictor.predict_folder(tmp_path / "in", tmp_path / ending, format=ending)
        check_map(tmp_path / f"{ending}/a.{ending}", picture)


def test_formats_that_cannot_hold_a_case(make_predictor, tmp_path):
    write_labels(tmp_path / "in/b.nii.gz", VOLUME.astype(np.uint8))
    predict = make_predictor().predict_folder
    with pytest.raises(UsageError, match="--format dicom-seg: expected DICOM series, got other images: b"):
        predict(tmp_path / "in", tmp_path / "out", format="dicom-seg")
    with pytest.raises(UsageError, match="--format png: expected pictures, got volumes: b"):
        predict(tmp_path / "in", tmp_path / "out", format="png")
    assert not (tmp_path / "out").exists()


def test_skip_existing_sees_changed_added_and_removed_files(make_predictor, tmp_path):
    series = write_series(tmp_path / "in/a", VOLUME)
    predict = make_predictor().predict_folder

    def skipped():
        return predict(tmp_path / "in", tmp_path / "out", skip_existing=True).cases[0].skipped

    assert [skipped(), skipped()] == [False, True]
    os.utime(series / "IM0002", (1, 1))
    assert [skipped(), skipped()] == [False, True]
    (series / "IM0004").unlink()
    assert [skipped(), skipped()] == [False, True]
    assert (
        not predict(tmp_path / "in", tmp_path / "out", skip_existing=True, format="dicom-seg")
        .cases[0]
        .skipped
    )


def test_unusable_series_do_not_stop_the_others(make_predictor, tmp_path):
    write_series(tmp_path / "in/a", VOLUME)
    write_series(tmp_path / "in/b", VOLUME, series="1.2.3")
    (tmp_path / "in/b/IM0002").unlink()
    (tmp_path / "in/c.zip").write_bytes(b"PK")
    (tmp_path / "outside").mkdir()
    write_series(tmp_path / "outside", VOLUME, series="1.2.4")
    (tmp_path / "in/d").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError) as caught:
        make_predictor().predict_folder(tmp_path / "in", tmp_path / "out")
    for text in (
        "case b: ",
        "1 missing slice",
        "case c: ",
        "expected a zip file",
        "case d: ",
        "the link d to",
    ):
        assert text in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz"]


@pytest.mark.parametrize("kind", ["truncated", "gap", "text", "link", "zip"])
def test_nothing_is_written_for_one_unusable_series(make_predictor, tmp_path, kind):
    source = write_series(tmp_path / "series", VOLUME)
    if kind == "truncated":
        (source / "IM0001").write_bytes((source / "IM0001").read_bytes()[:-8])
    elif kind == "gap":
        (source / "IM0001").unlink()
    elif kind == "text":
        (source / "a.dcm").write_text("text")
    elif kind == "link":
        (source / "link").symlink_to("/etc/hostname")
    else:
        source = tmp_path / "a.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("../evil.dcm", b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        make_predictor().predict_folder(source, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_not_written_into_the_series(make_predictor, tmp_path):
    series = write_series(tmp_path / "series", VOLUME)
    with pytest.raises(UsageError, match="it is the folder of the images to segment"):
        make_predictor().predict_folder(series, series)


def test_a_model_of_pictures_leaves_series_out(make_predictor, tmp_path):
    predictor = make_predictor(num_axes=2, patch_size=(8, 8), dataset={"file_ending": ".png"})
    write_picture(tmp_path / "in/a.png", RNG.integers(0, 2, (6, 7)))
    write_series(tmp_path / "in/b", VOLUME)
    assert [case.case for case in predictor.predict_folder(tmp_path / "in", tmp_path / "out").cases] == ["a"]


def test_codes_need_segmentations_and_known_labels(make_predictor, tmp_path):
    from scanseg.specs import SegmentCodes

    series = write_series(tmp_path / "series", VOLUME)
    code = {"type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}}
    predict = make_predictor().predict_folder
    with pytest.raises(UsageError, match="expected the format dicom-seg"):
        predict(series, tmp_path / "out", segment_codes=SegmentCodes(segments={"bright": code}))
    with pytest.raises(InputError, match="expected names among bright, got liver"):
        predict(
            series, tmp_path / "out", format="dicom-seg", segment_codes=SegmentCodes(segments={"liver": code})
        )
    assert not (tmp_path / "out").exists()


def test_the_command(command, make_predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("scanseg.api.load", lambda *arguments, **options: make_predictor())
    write_series(tmp_path / "study/a", VOLUME, series="1.2.77")
    write_series(tmp_path / "study/b", OTHER, series="1.3.88")
    codes = tmp_path / "codes.json"
    code = {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}
    codes.write_text(json.dumps({"segments": {"bright": {"type": code}}}))
    words = ("predict", "MODEL", tmp_path / "study", "--format", "dicom-seg", "--segment-codes", codes)
    assert command(*words, "--series", "1.3", "-o", tmp_path / "out").code == 0
    (segment,) = dcmread(tmp_path / "out/b.dcm").SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert [path.name for path in (tmp_path / "out").glob("*.dcm")] == ["b.dcm"]
    failed = command(*words, "--series", "1.", "-o", tmp_path / "none")
    assert (failed.code, failed.stderr.count("error: "), "Traceback" in failed.stderr) == (1, 1, False)
    codes.write_text('{"segments": {"bright": {}}}')
    assert command(*words, "-o", tmp_path / "none").code == 1
    assert not (tmp_path / "none").exists()


def test_formats_of_the_command_are_those_of_the_package():
    assert options.OutputFormat == OutputFormat


def test_listing(command, tmp_path):
    write_series(tmp_path / "study/a", VOLUME)
    write_series(tmp_path / "study/b", OTHER, series="1.2.3")
    (tmp_path / "study/b/IM0002").unlink()
    save(
        make_slice(VOLUME[0], (0, 0, 0), series="1.9", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"),
        tmp_path / "study/s",
    )
    shown = command("dicom", "list", tmp_path / "study")
    assert shown.code == 0
    words = f"CT 3 thin 5 5 x 6 x 7 3 x 0.5 x 0.75 {SERIES}"
    assert words in [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert f"{tmp_path / 'study/1.2.3'}: expected a slice every 3 mm, got 1 missing slice" in shown.stdout
    assert shown.stderr == "left out: 1 Segmentation Storage\n"
    found = json.loads(command("dicom", "list", "--json", tmp_path / "study").stdout)
    assert [(series["uid"], series["shape"]) for series in found["series"]] == [
        ("1.2.3", None),
        (SERIES, [5, 6, 7]),
    ]
    (tmp_path / "study/x.dcm").write_text("text")
    failed = command("dicom", "list", tmp_path / "study")
    assert (failed.code, SERIES in failed.stdout) == (1, True)
    assert "x.dcm: expected DICOM by its name" in failed.stderr
    assert command("dicom", "list", tmp_path / "missing").code == 1
