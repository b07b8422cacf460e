"""BraTS and the Decathlon: conversion from each layout."""

import json
import re

import numpy as np
import pytest

from scanseg.converters.table import _ABDOMEN_MR
from scanseg.dataset.raw import open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.imaging import read_image, read_label_map

from . import forms
from .forms import convert, label_map, raw_abdomen, refused

# brats


@pytest.mark.parametrize(
    ("pattern", "channels", "values"),
    [
        ("BraTS-GLI-{:05d}-000/BraTS-GLI-{:05d}-000-{}.nii.gz", ("t1n", "t1c", "t2w", "t2f"), (0, 1, 2, 3)),
        ("BraTS2021_{:05d}/BraTS2021_{:05d}_{}.nii.gz", ("t1", "t1ce", "t2", "flair"), (0, 1, 2, 4)),
    ],
)
def test_brats(tmp_path, pattern, channels, values):
    root = tmp_path / "source" / "TrainingData"
    arrays = {}
    for number in range(10):
        label_path = root / pattern.format(number, number, "seg")
        for index, channel in enumerate(channels):
            path = root / pattern.format(number, number, channel)
            arrays[number, channel] = forms.write_pair(
                path, label_path, forms.labels_of(values), channel=index
            )
    result, dataset = convert("brats23", tmp_path / "source", tmp_path / "out")
    assert result.num_cases == {"train": 7, "validation": 1, "test": 2}
    assert dataset.spec.has_regions
    assert dataset.spec.foreground["tumour core"] == (1, 3)
    case = dataset.cases[0]
    number = int(re.search(r"\d{5}", case.name)[0])
    np.testing.assert_array_equal(
        read_image(case.images).array, np.concatenate([arrays[number, channel] for channel in channels])
    )
    assert read_label_map(case.label_map).array.reshape(-1)[:4].tolist() == [0, 1, 2, 3]
    assert len(find_splits(dataset).folds) == 1
    (root / pattern.format(3, 3, channels[1])).unlink()
    assert f"missing {pattern.format(3, 3, channels[1]).split('/')[1]}" in refused(
        "brats23", tmp_path / "source", tmp_path / "again"
    )


def test_real_brains(shared_data, tmp_path):
    """Convert real volumes of BraTS 2015, renamed as in BraTS 2023. Their label 4 is the enhancing tumour."""
    from dataclasses import replace

    from scanseg.imaging import write_image, write_label_map

    case = open_dataset(shared_data / "brats2015").cases[0]
    image, labels = read_image(case.images), read_label_map(case.label_map)
    folder = tmp_path / "source" / "BraTS-GLI-00000-000"
    folder.mkdir(parents=True)
    for channel, index in (("t1n", 1), ("t1c", 1), ("t2w", 0), ("t2f", 0)):
        write_image(
            folder / f"{folder.name}-{channel}.nii.gz", replace(image, array=image.array[index : index + 1])
        )
    table = np.array([0, 1, 2, 1, 3], np.uint8)
    write_label_map(folder / f"{folder.name}-seg.nii.gz", table[labels.array[0]], like=image)
    _, dataset = convert("brats23", tmp_path / "source", tmp_path / "out")
    converted = read_image(dataset.cases[0].images)
    assert (converted.spacing, converted.origin) == (image.spacing, image.origin)
    np.testing.assert_array_equal(converted.array[[3, 1]], image.array)
    np.testing.assert_array_equal(label_map(tmp_path / "out", folder.name) == 3, labels.array[0] == 4)


# decathlon


def test_msd_with_channels_as_a_fourth_axis(tmp_path):
    import SimpleITK

    root = tmp_path / "Task05_Prostate"
    labels = forms.labels_of(range(3))
    channels = []
    for index in range(2):
        path = tmp_path / f"{index}.nii.gz"
        channels.append(forms.write_pair(path, root / "labelsTr" / "p_00.nii.gz", labels, channel=index))
    volumes = [SimpleITK.ReadImage(str(tmp_path / f"{index}.nii.gz")) for index in range(2)]
    (root / "imagesTr").mkdir()
    SimpleITK.WriteImage(SimpleITK.JoinSeries(volumes), str(root / "imagesTr" / "p_00.nii.gz"))
    (root / "imagesTr" / "._p_00.nii.gz").write_bytes(b"macOS")
    forms.describe(
        root,
        name="PROSTATE",
        licence="CC-BY-SA 4.0",
        modality={"0": "T2", "1": "ADC"},
        labels={"0": "background", "1": "PZ", "2": "TZ"},
        training=[{"image": "./imagesTr/p_00.nii.gz", "label": "./labelsTr/p_00.nii.gz"}],
        test=[],
    )
    _, dataset = convert("msd", root, tmp_path / "out")
    assert [image.name for image in dataset.cases[0].images] == ["p_00_0000.nii.gz", "p_00_0001.nii.gz"]
    assert dataset.spec.labels == {"background": 0, "PZ": 1, "TZ": 2}
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert description["licence"] == "CC-BY-SA 4.0"
    assert "reference" not in description
    np.testing.assert_array_equal(read_image(dataset.cases[0].images).array, np.concatenate(channels))


def test_folds_of_the_source_are_kept(shared_data, tmp_path):
    source = tmp_path / "source"
    forms.link_some(shared_data / "hippocampus", source, ("imagesTr", "labelsTr"), number=4)
    (source / "dataset.json").symlink_to(shared_data / "hippocampus" / "dataset.json")
    first, *others = [case.name for case in open_dataset(source).cases]
    (source / "splits_final.json").write_text(json.dumps([{"train": others, "val": [first]}]))
    _, dataset = convert("hippocampus", source, tmp_path / "out")
    (fold,) = find_splits(dataset).folds
    assert (fold.validation, fold.train) == ((first,), tuple(others))
    (source / "splits_final.json").write_text(json.dumps([{"train": others, "val": ["nobody"]}]))
    assert "nobody" in refused("hippocampus", source, tmp_path / "again")


def test_drawn_test_cases_leave_the_folds_of_the_source(shared_data, tmp_path):
    source = tmp_path / "source"
    forms.link_some(shared_data / "hippocampus", source, ("imagesTr", "labelsTr"), number=5)
    (source / "dataset.json").symlink_to(shared_data / "hippocampus" / "dataset.json")
    known = [case.name for case in open_dataset(source).cases]
    folds = [{"train": [other for other in known if other != name], "val": [name]} for name in known]
    (source / "splits_final.json").write_text(json.dumps(folds))
    result, dataset = convert("msd", source, tmp_path / "out", test_fraction=0.2)
    (test,) = set(known) - {case.name for case in dataset.cases}
    rest = [name for name in known if name != test]
    written = find_splits(dataset).folds
    assert [fold.validation for fold in written] == [(name,) for name in rest]
    assert all(set(fold.train) == set(rest) - set(fold.validation) for fold in written)
    assert "test cases are removed from the folds of the source" in result.notes


def test_other_labels_are_no_hippocampus(tmp_path):
    organs = {name: value for name, value in _ABDOMEN_MR.labels.items() if name != "background"}
    raw_abdomen(tmp_path / "source", organs)
    message = refused("hippocampus", tmp_path / "source", tmp_path / "out")
    assert "label anterior should be 1, which dataset.json calls liver" in message
    organs["anterior"] = organs.pop("liver")
    organs["posterior"] = organs.pop("right kidney")
    forms.describe(
        tmp_path / "source",
        channel_names={"0": "MRI"},
        labels={"background": 0, **organs},
        numTraining=1,
        file_ending=".nii.gz",
    )
    message = refused("hippocampus", tmp_path / "source", tmp_path / "out")
    assert "dataset.json has further labels: adrenal left" in message
