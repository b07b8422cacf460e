"""The demo's data set: anatomy, noise and shading, reproducibility."""

import itertools
import json
from importlib import util

import numpy as np
import pytest
from scipy import ndimage

from scanseg.dataset.check import check_dataset
from scanseg.dataset.raw import open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.demo import anatomy
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map
from scanseg.runtime import RunContext

ONE_CASE_OF_EACH = ("slab-1-scan-1", "slab-2", "slab-3-scan-1", "slab-4", "slab-5-scan-1")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return anatomy.make_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def test_passes_the_check_and_has_one_fold(dataset):
    raw = open_dataset(dataset)

    assert check_dataset(raw, context=RunContext(num_workers=0)).lines()
    (fold,) = find_splits(raw).folds
    assert fold.train == tuple(f"slab-{slab}-scan-{scan}" for slab in (1, 3, 5) for scan in (1, 2, 3, 4))
    assert fold.validation == ("slab-2", "slab-4")


def test_slabs_lie_behind_each_other_in_space(dataset):
    slabs = [read_image(dataset / "imagesTr" / f"{case}_0000.nii.gz") for case in ONE_CASE_OF_EACH]

    for slab, following in itertools.pairwise(slabs):
        step = np.subtract(following.origin, slab.origin)
        assert np.abs(step) == pytest.approx([0, slab.shape[1] * slab.spacing[1], 0])


def test_labels_are_all_tissues_in_every_slab(dataset):
    for case in ONE_CASE_OF_EACH:
        labels = read_label_map(dataset / "labelsTr" / f"{case}.nii.gz").array
        assert np.unique(labels).tolist() == [0, 1, 2, 3]


def test_tissues_fill_one_connected_brain_from_dark_to_bright():
    brain, tissues = anatomy.read_template()

    assert ndimage.label(tissues > 0)[1] == 1
    assert ((brain.array[0] > 0) == (tissues > 0)).all()
    means = [brain.array[0][tissues == value].mean() for value in anatomy.TISSUES.values()]
    assert means == sorted(means)


def test_scans_of_a_slab_differ_in_shading_but_not_in_labels(dataset):
    images, labels = (
        [reader(dataset / folder / f"slab-1-scan-{scan}{ending}").array[0] for scan in (1, 2)]
        for reader, folder, ending in (
            (read_image, "imagesTr", "_0000.nii.gz"),
            (read_label_map, "labelsTr", ".nii.gz"),
        )
    )

    assert (labels[0] == labels[1]).all()
    white = ndimage.gaussian_filter(images[0] - images[1], 4)[labels[0] == 3]
    assert white.std() > 0.03


def test_the_same_seed_gives_the_same_images_and_another_others(coarse_brain, tmp_path):
    def make(name, seed):
        folder = anatomy.make_dataset(tmp_path / name, seed=seed)
        return read_image(folder / "imagesTr" / "slab-1-scan-1_0000.nii.gz").array

    first = make("first", 0)

    assert (make("again", 0) == first).all()
    assert (make("other", 1) != first).any()


def test_noise_and_shading_are_as_strong_as_promised(dataset):
    image = read_image(dataset / "imagesTr" / "slab-1-scan-1_0000.nii.gz").array[0]
    corner = image[:10, :, :10]

    assert corner.std() == pytest.approx(0.07, rel=0.1)
    assert json.loads((dataset / "dataset.json").read_text())["labels"]["white matter"] == 3


def test_without_nilearn_the_error_advises_its_installation(tmp_path, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(anatomy, "find_spec", lambda name: None if name == "nilearn" else find_spec(name))

    with pytest.raises(InputError, match=r'pip install "scanseg\[demo\]"'):
        anatomy.make_dataset(tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
