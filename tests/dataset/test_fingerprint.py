import json

import numpy as np
import PIL.Image
import pytest

from scanseg.dataset.fingerprint import compute_fingerprint
from scanseg.dataset.raw import open_dataset
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map
from scanseg.runtime import RunContext


def test_shapes_after_cropping_and_intensities_of_the_foreground(make_dataset, volume_writer):
    folder = make_dataset(2)
    image, label_map = np.zeros((5, 12, 10), np.int16), np.zeros((5, 12, 10), np.uint8)
    image[1:5, 2:10, 3:6] = 50
    label_map[2, 4, 4] = 1
    label_map[2, 4, 5] = 2
    image[2, 4, 4:6] = (100, 300)
    for number in range(2):
        volume_writer(folder / f"imagesTr/case_{number}_0000.nii.gz", image)
        volume_writer(folder / f"labelsTr/case_{number}.nii.gz", label_map)
    fingerprint = compute_fingerprint(open_dataset(folder), context=RunContext(num_workers=0))
    assert fingerprint.num_axes == 3
    assert [case.case for case in fingerprint.cases] == ["case_0", "case_1"]
    assert fingerprint.cases[0].shape == (4, 8, 3)
    assert fingerprint.cases[0].source_shape == (5, 12, 10)
    np.testing.assert_allclose(fingerprint.cases[0].spacing, (3, 0.5, 0.75))
    assert fingerprint.median_relative_size_after_crop == pytest.approx(4 * 8 * 3 / 600)
    (intensities,) = fingerprint.intensities
    assert (intensities.minimum, intensities.maximum) == (100, 300)
    assert intensities.mean == pytest.approx(200, abs=3)  # 10000 draws of two values
    assert intensities.standard_deviation == pytest.approx(100, abs=1)
    assert (intensities.percentile_00_5, intensities.percentile_99_5) == (100, 300)


def test_measures_are_repeatable_and_the_same_with_workers(make_dataset):
    dataset = open_dataset(make_dataset(3, num_channels=2))
    assert compute_fingerprint(dataset, context=RunContext(num_workers=0)) == compute_fingerprint(
        dataset, context=RunContext(num_workers=2)
    )


def test_ignore_label_is_no_foreground(make_dataset):
    labels = {"background": 0, "outer": 1, "ignore": 2}
    dataset = open_dataset(make_dataset(1, labels=labels))
    image = read_image(dataset.cases[0].images).array[0]
    foreground = image[read_label_map(dataset.cases[0].label_map).array[0] == 1]
    assert (
        compute_fingerprint(dataset, context=RunContext(num_workers=0)).intensities[0].maximum
        == foreground.max()
    )


def test_pictures_are_slices_of_spacing_999(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        PIL.Image.new("L", (7, 6), 1).save(
            tmp_path / folder / ("a_0000.png" if folder == "imagesTr" else "a.png")
        )
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    fingerprint = compute_fingerprint(open_dataset(tmp_path), context=RunContext(num_workers=0))
    assert fingerprint.num_axes == 2
    assert fingerprint.cases[0].spacing == (999, 1, 1)
    assert fingerprint.cases[0].shape == (1, 6, 7)


def test_no_foreground_at_all(make_dataset, volume_writer):
    folder = make_dataset(1)
    volume_writer(folder / "labelsTr/case_0.nii.gz", np.zeros((5, 12, 10), np.uint8))
    with pytest.raises(InputError, match="none of 1 case has foreground"):
        compute_fingerprint(open_dataset(folder), context=RunContext(num_workers=0))


def test_label_map_on_another_grid_is_refused(make_dataset, volume_writer):
    folder = make_dataset(1)
    volume_writer(folder / "labelsTr/case_0.nii.gz", np.zeros((5, 12, 11), np.uint8))
    with pytest.raises(InputError, match=r"case case_0: image and label map case_0.nii.gz differ in shape"):
        compute_fingerprint(open_dataset(folder), context=RunContext(num_workers=0))


def test_real_data(shared_data):
    dataset = open_dataset(shared_data / "brats2015")
    fingerprint = compute_fingerprint(
        type(dataset)(dataset.path, dataset.spec, dataset.cases[:1]), context=RunContext(num_workers=0)
    )
    assert len(fingerprint.intensities) == 2
    assert fingerprint.cases[0].spacing == (1, 1, 1)
