"""Folders of DICOM series with label maps become data sets."""

import numpy as np
import pytest

import scanseg
from scanseg.dataset.recognition import suggest_conversion
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map
from tests.dicom_series import make_slice, save, write_series
from tests.factories import write_volume

RNG = np.random.default_rng(0)
VOLUMES = {name: RNG.integers(0, 900, (4, 6, 7)).astype(np.int16) for name in ("anna", "bob")}
LABELS = {name: (volume > 400).astype(np.uint8) for name, volume in VOLUMES.items()}
GRID = {"origin": (5.0, -6.0, 7.0), "spacing": (3.0, 0.5, 0.75)}


def write_label_map(path, label_map):
    write_volume(path, label_map, GRID["spacing"], origin=GRID["origin"])


def check(dataset):
    for name, volume in VOLUMES.items():
        image = read_image(dataset / f"imagesTr/{name}_0000.nii.gz")
        np.testing.assert_array_equal(image.array[0], volume - 1024)
        assert image.spacing == pytest.approx(GRID["spacing"])
        np.testing.assert_allclose(image.origin, GRID["origin"], atol=1e-4)
        np.testing.assert_array_equal(
            read_label_map(dataset / f"labelsTr/{name}.nii.gz").array[0], LABELS[name]
        )
    assert scanseg.check(dataset, num_workers=0, progress=False).num_cases == 2


@pytest.mark.parametrize("layout", ["case folders", "series in subfolders", "two folders"])
def test_series_with_label_maps(tmp_path, layout):
    source = tmp_path / "source"
    for name, volume in VOLUMES.items():
        folder = {
            "case folders": source / name,
            "series in subfolders": source / name / "dicom/series",
            "two folders": source / "images" / name,
        }[layout]
        write_series(folder, volume, RescaleIntercept="-1024", **GRID)
        labels = source / "labels" if layout == "two folders" else source / name
        write_label_map(
            labels / f"{name}.nii.gz" if layout == "two folders" else labels / "seg.nii.gz", LABELS[name]
        )
    found = scanseg.inspect_folder(source, num_workers=0, progress=False)
    assert (found.labelled, found.spacings) == (("anna", "bob"), ((3.0, 0.5, 0.75),))
    assert found.faults == ()
    scanseg.convert("folder", source, tmp_path / "DATASET", channels="CT", num_workers=0, progress=False)
    check(tmp_path / "DATASET")
    assert "scanseg data convert folder" in suggest_conversion(source)


def test_series_without_label_maps(command, tmp_path):
    source = write_series(tmp_path / "in/anna", VOLUMES["anna"]).parent
    shown = command("check", source)
    assert shown.code == 1
    assert (
        "The folder has DICOM files, but no label maps. Check its series, and add label maps:" in shown.stderr
    )
    assert f"  scanseg dicom list {source}" in shown.stderr
    shown = command("data", "convert", "folder", source, "-o", tmp_path / "DATASET")
    assert (shown.code, (tmp_path / "DATASET").exists()) == (1, False)


def test_structure_masks_beside_series(tmp_path):
    for name, volume in VOLUMES.items():
        write_series(tmp_path / "in" / name, volume, RescaleIntercept="-1024", **GRID)
        for structure, number in (("liver", 1), ("spleen", 2)):
            write_label_map(
                tmp_path / f"in/{name}/segmentations/{structure}.nii.gz",
                (volume % 3 == number).astype(np.uint8),
            )
    scanseg.convert("folder", tmp_path / "in", tmp_path / "DATASET", num_workers=0, progress=False)
    expected = np.where(VOLUMES["bob"] % 3 == 0, 0, VOLUMES["bob"] % 3)
    np.testing.assert_array_equal(read_label_map(tmp_path / "DATASET/labelsTr/bob.nii.gz").array[0], expected)


def test_unusable_series_are_faults_of_their_case(tmp_path):
    for name, volume in VOLUMES.items():
        write_series(tmp_path / "in" / name, volume, **GRID)
        write_label_map(tmp_path / f"in/{name}/seg.nii.gz", LABELS[name])
    write_series(tmp_path / "in/anna/more", VOLUMES["anna"], series="1.2.3")
    save(make_slice(VOLUMES["bob"][0], (5, -6, 8.5), number=9), tmp_path / "in/bob/extra")
    with pytest.raises(InputError) as caught:
        scanseg.convert("folder", tmp_path / "in", tmp_path / "DATASET", num_workers=0, progress=False)
    assert "case anna: expected one DICOM series, got 2 series (1.2.3, 1.2.826" in str(caught.value)
    (tmp_path / "in/anna/more").rename(tmp_path / "more")
    with pytest.raises(InputError, match=r"case bob: .*bob: expected slices at equal distances"):
        scanseg.convert("folder", tmp_path / "in", tmp_path / "DATASET", num_workers=0, progress=False)
    assert not (tmp_path / "DATASET").exists()
