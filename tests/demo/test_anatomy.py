"""The demo's data set: anatomy, noise and shading, reproducibility."""

import itertools
import json
from importlib import util

import numpy as np
import pytest

from scanseg.dataset.check import check_dataset
from scanseg.dataset.raw import open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.demo import anatomy
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map
from scanseg.runtime import RunContext


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return anatomy.make_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def test_passes_the_check_and_has_one_fold(dataset):
    raw = open_dataset(dataset)

    assert check_dataset(raw, context=RunContext(num_workers=0)).lines()
    (fold,) = find_splits(raw).folds
    assert fold.train == ("slab-1", "slab-3")
    assert fold.validation == ("slab-2", "slab-4")


def test_slabs_lie_behind_each_other_in_space(dataset):
    slabs = [read_image(dataset / "imagesTr" / f"slab-{n}_0000.nii.gz") for n in (1, 2, 3, 4)]

    for slab, following in itertools.pairwise(slabs):
        step = np.subtract(following.origin, slab.origin)
        assert np.abs(step) == pytest.approx([0, slab.shape[1] * slab.spacing[1], 0])


def test_labels_are_both_tissues_in_every_slab(dataset):
    for number in (1, 2, 3, 4):
        labels = read_label_map(dataset / "labelsTr" / f"slab-{number}.nii.gz").array
        assert np.unique(labels).tolist() == [0, 1, 2]


def test_the_same_seed_gives_the_same_images_and_another_others(dataset, tmp_path):
    def first(folder):
        return read_image(folder / "imagesTr" / "slab-1_0000.nii.gz").array

    again = anatomy.make_dataset(tmp_path / "again")
    other = anatomy.make_dataset(tmp_path / "other", seed=1)

    assert (first(again) == first(dataset)).all()
    assert (first(other) != first(dataset)).any()


def test_noise_and_shading_are_as_strong_as_promised(dataset):
    image = read_image(dataset / "imagesTr" / "slab-1_0000.nii.gz").array[0]
    corner = image[:10, :, :10]

    assert corner.std() == pytest.approx(0.07, rel=0.1)
    assert json.loads((dataset / "dataset.json").read_text())["labels"]["white matter"] == 2


def test_without_nilearn_the_error_advises_its_installation(tmp_path, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(anatomy, "find_spec", lambda name: None if name == "nilearn" else find_spec(name))

    with pytest.raises(InputError, match=r'pip install "scanseg\[demo\]"'):
        anatomy.make_dataset(tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
