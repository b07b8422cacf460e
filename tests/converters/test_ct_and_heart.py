"""Synapse, ACDC and the abdomen: conversion from each layout."""

import numpy as np
import pytest

from scanseg.converters import NAMED_DATASETS
from scanseg.converters.table import _ABDOMEN_MR
from scanseg.dataset.raw import open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.imaging import read_image

from . import forms
from .forms import convert, label_map, names, raw_abdomen, refused, transunet

# synapse


@pytest.mark.parametrize("place", [".", "Synapse"])
def test_synapse_of_transunet(tmp_path, place):
    volumes = transunet(tmp_path / "source" / place)
    result, dataset = convert("synapse", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 1, "test": 1}
    assert names(dataset) == ["case0005"]
    assert dataset.spec.labels["gallbladder"] == 2
    image = read_image(tmp_path / "out" / "imagesTr" / "case0005_0000.nii.gz").array[0]
    np.testing.assert_allclose(image, volumes["0005"][0] * 400 - 125, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(label_map(tmp_path / "out", "case0005"), volumes["0005"][1])
    np.testing.assert_array_equal(label_map(tmp_path / "out", "case0008", part="Ts"), volumes["0008"][1])
    assert any("17 of the 18 cases" in note for note in result.notes)
    assert any("spacing" in note for note in result.notes)


def test_synapse_of_transunet_with_faults(tmp_path):
    source = tmp_path / "source"
    transunet(source)
    (source / "train_npz" / "case0005_slice001.npz").unlink()
    np.savez(source / "train_npz" / "case0006_slice000.npz", image=np.zeros((4, 4)))
    np.savez(
        source / "train_npz" / "case0007_slice000.npz", image=np.full((4, 4), 2.0), label=np.zeros((4, 4))
    )
    np.savez(
        source / "train_npz" / "case0009_slice000.npz",
        image=np.zeros((4, 4)),
        label=np.array([[{}] * 4] * 4, dtype=object),
    )
    np.savez(source / "train_npz" / "case0001_slice000.npz", image=np.eye(4), label=np.eye(4))
    np.savez(source / "train_npz" / "case0010_slice000.npz", image=np.eye(4), label=9 * np.eye(4))
    message = refused("synapse", source, tmp_path / "out")
    for part in (
        "case 0005: slices 001 are missing",
        "case0006_slice000.npz: expected arrays label, got image",
        "expected intensities in [0, 1], got 2 to 2",
        "case0009_slice000.npz: expected plain arrays, the file is damaged or pickled",
        "case 0001: in train_npz, but no train case",
        "case case0010: unknown label values 9",
        "6 faults",
    ):
        assert part in message, part


@pytest.mark.parametrize("place", [".", "RawData/Training"])
def test_synapse_of_btcv(tmp_path, place):
    root = tmp_path / "source" / place
    labels = forms.labels_of(range(14))
    for case in ("0001", "0005"):
        forms.write_pair(root / "img" / f"img{case}.nii.gz", root / "label" / f"label{case}.nii.gz", labels)
    result, dataset = convert("synapse", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 1, "test": 1}
    image = read_image(dataset.cases[0].images)
    assert image.array.min() >= -125
    assert image.array.max() <= 275
    assert image.spacing == pytest.approx((2.0, 0.8, 0.8))
    # BTCV: 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 6 liver, 7 stomach, 8 aorta, 11 pancreas.
    expected = [0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0]
    assert label_map(tmp_path / "out", "case0005").reshape(-1)[:14].tolist() == expected


def test_synapse_of_btcv_with_faults(tmp_path):
    root = tmp_path / "source"
    for case, values in (("0001", [0, 14]), ("0002", [0, 1]), ("0099", [0, 1])):
        forms.write_pair(
            root / "img" / f"img{case}.nii.gz",
            root / "label" / f"label{case}.nii.gz",
            forms.labels_of(values),
        )
    (root / "img" / "img0002.nii.gz").unlink()
    message = refused("synapse", root, tmp_path / "out")
    for part in (
        "[14], which are no labels",
        "label0002: no img0002.nii.gz",
        "img0099: not in the published split",
    ):
        assert part in message, part


# acdc


def test_acdc_of_the_challenge(tmp_path):
    root = tmp_path / "source" / "training"
    for patient, frames in (("001", (1, 12)), ("019", (1, 11)), ("002", (1, 12)), ("101", (1, 14))):
        for frame in frames:
            stem = f"patient{patient}_frame{frame:02d}"
            folder = root / f"patient{patient}"
            forms.write_pair(
                folder / f"{stem}.nii.gz",
                folder / f"{stem}_gt.nii.gz",
                forms.labels_of(range(4)),
                spacing=(10, 1.5, 1.5),
            )
        (folder / "Info.cfg").write_text("ED: 1\n")
    result, dataset = convert("acdc", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 2, "validation": 2, "test": 2}
    assert names(dataset) == [
        "patient001_frame01",
        "patient001_frame12",
        "patient019_frame01",
        "patient019_frame11",
    ]
    (fold,) = find_splits(dataset).folds
    assert fold.validation == ("patient019_frame01", "patient019_frame11")
    assert any(
        note.startswith("1 patient beyond the published split is left out: 101") for note in result.notes
    )
    assert (
        sorted(path.name for path in (tmp_path / "out" / "labelsTs").iterdir())[0]
        == "patient002_frame01.nii.gz"
    )


def test_acdc_of_the_challenge_with_faults(tmp_path):
    root = tmp_path / "source"
    for patient in ("001", "003"):
        folder = root / f"patient{patient}"
        for frame in ("01", "09"):
            stem = f"patient{patient}_frame{frame}"
            forms.write_pair(
                folder / f"{stem}.nii.gz", folder / f"{stem}_gt.nii.gz", forms.labels_of([0, 1, 2, 3])
            )
    (root / "patient001" / "patient001_frame09_gt.nii.gz").unlink()
    (root / "patient003" / "patient003_frame09.nii.gz").unlink()
    (root / "patient003" / "patient003_frame01_gt.nii.gz").write_bytes(b"x")
    message = refused("acdc", root, tmp_path / "out")
    for part in (
        "no patient001_frame09_gt.nii.gz",
        "patient003: expected 2 files patient003_frameMM.nii.gz, got 1",
        "patient003_frame01_gt.nii.gz",
        "3 faults",
    ):
        assert part in message, part


def test_acdc_of_mtunet(tmp_path):
    root = tmp_path / "source" / "ACDC"
    rng = np.random.default_rng(0)
    volume = rng.random((3, 6, 8))
    labels = forms.labels_of(range(4))
    for folder in ("train", "valid", "test"):
        (root / folder).mkdir(parents=True)
    for folder, patient in (("train", "001"), ("valid", "019")):
        for index in range(3):
            np.savez(
                root / folder / f"case_{patient}_sliceED_{index}.npz", img=volume[index], label=labels[index]
            )
    np.savez(root / "test" / "case_002_volume_ES.npz", img=volume, label=labels)
    result, dataset = convert("acdc", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 1, "validation": 1, "test": 1}
    assert names(dataset) == ["patient001_ED", "patient019_ED"]
    np.testing.assert_array_equal(label_map(tmp_path / "out", "patient002_ES", part="Ts"), labels)
    np.testing.assert_allclose(read_image(dataset.cases[0].images).array[0], volume, rtol=1e-6)
    (root / "train" / "case_001_sliceED_1.npz").unlink()
    assert "case 001 ED: slices 1 are missing" in refused("acdc", tmp_path / "source", tmp_path / "again")
    (root / "train" / "case_001_sliceED_0.npz").unlink()
    assert "case 001 ED: slices 0, 1 are missing" in refused("acdc", tmp_path / "source", tmp_path / "again")


def test_acdc_in_the_raw_layout(shared_data, tmp_path):
    found = NAMED_DATASETS["acdc"].layouts[2].find(shared_data / "acdc")
    (theirs,) = find_splits(open_dataset(shared_data / "acdc")).folds
    parts = {case.name: case.part for case in found.cases}
    assert {name for name, part in parts.items() if part == "train"} == set(theirs.train)
    assert {name for name, part in parts.items() if part == "validation"} == set(theirs.validation)
    forms.link_some(shared_data / "acdc", tmp_path / "source", ("imagesTr", "labelsTr"), number=4)
    (tmp_path / "source" / "dataset.json").symlink_to(shared_data / "acdc" / "dataset.json")
    _, dataset = convert("acdc", tmp_path / "source", tmp_path / "out")
    for case in dataset.cases:
        np.testing.assert_array_equal(
            label_map(tmp_path / "out", case.name), label_map(shared_data / "acdc", case.name)
        )


# abdomen


def test_abdomen_mr_of_amos(tmp_path):
    root = tmp_path / "amos22"
    labels = forms.labels_of(range(16))
    for part, case in (("Tr", "0001"), ("Tr", "0507"), ("Va", "0510")):
        name = f"amos_{case}.nii.gz"
        forms.write_pair(root / f"images{part}" / name, root / f"labels{part}" / name, labels)
    forms.describe(root, name="AMOS")
    result, dataset = convert("abdomen-mr", root, tmp_path / "out")
    assert names(dataset) == ["amos_0507", "amos_0510"]
    assert any(note.startswith("1 CT cases") for note in result.notes)
    # AMOS: spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta, postcava, pancreas,
    # right adrenal gland, left adrenal gland, duodenum, bladder, prostate.
    expected = [0, 3, 2, 13, 9, 10, 1, 11, 5, 6, 4, 7, 8, 12, 0, 0]
    assert label_map(tmp_path / "out", "amos_0507").reshape(-1)[:16].tolist() == expected
    (root / "labelsVa" / "amos_0510.nii.gz").unlink()
    assert "no label map labelsVa/amos_0510.nii.gz" in refused("abdomen-mr", root, tmp_path / "again")
    (root / "labelsVa").rmdir()
    result, dataset = convert("abdomen-mr", root, tmp_path / "again")
    assert names(dataset) == ["amos_0507"]
    assert "imagesVa is left out, as labelsVa is missing" in result.notes


def test_abdomen_mr_in_the_raw_layout(tmp_path):
    organs = {name: value for name, value in _ABDOMEN_MR.labels.items() if name != "background"}
    organs["RAG"] = organs.pop("right adrenal gland")
    organs["Liver"] = organs.pop("liver")
    raw_abdomen(tmp_path / "source", organs)
    result, dataset = convert("abdomen-mr", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 1, "test": 1}
    assert dataset.spec.labels == _ABDOMEN_MR.labels


def test_labels_in_another_order_are_refused(tmp_path):
    organs = {name: value for name, value in _ABDOMEN_MR.labels.items() if name != "background"}
    organs["liver"], organs["spleen"] = organs["spleen"], organs["liver"]
    raw_abdomen(tmp_path / "source", organs)
    message = refused("abdomen-mr", tmp_path / "source", tmp_path / "out")
    assert "label liver should be 1, which dataset.json calls spleen" in message
    assert "label spleen should be 3, which dataset.json calls liver" in message


def test_abdomen_ct_of_flare(tmp_path):
    root = tmp_path / "FLARE22Train" / "FLARE22_LabeledCase50"
    forms.write_pair(
        root / "images" / "FLARE22_Tr_0001_0000.nii.gz",
        root / "labels" / "FLARE22_Tr_0001.nii.gz",
        forms.labels_of(range(14)),
    )
    _, dataset = convert(
        "abdomen-ct", tmp_path / "FLARE22Train" / "..", tmp_path.parent / f"{tmp_path.name}-out"
    )
    assert names(dataset) == ["FLARE22_Tr_0001"]
    (root / "labels" / "FLARE22_Tr_0001.nii.gz").unlink()
    assert "no label map labels/FLARE22_Tr_0001.nii.gz" in refused("abdomen-ct", root, tmp_path / "again")
