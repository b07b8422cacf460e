"""Check of data sets whose NIfTI headers contradict themselves."""

import json

import nibabel as nib
import numpy as np
import pytest

from scanseg.dataset import check_dataset, open_dataset
from scanseg.errors import FaultsError
from scanseg.runtime import RunContext
from tests.imaging.nifti_files import PLAIN, save, turned

TURNED = turned(PLAIN, 0.3)
SHEARED = PLAIN + 0.4 * np.eye(4, k=1) * (np.arange(4) == 1)[:, None]


def write_pairs(folder, rng, *, affine_of_labels=None, **position):
    """Write two cases whose label maps have the affine that nibabel reads from their image."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        array = rng.normal(size=(8, 9, 7)).astype(np.float32)
        path = save(folder / f"imagesTr/c{number}_0000.nii.gz", array, **position)
        affine = nib.load(path).affine if affine_of_labels is None else affine_of_labels
        nib.save(nib.Nifti1Image(np.uint8(array > 0), affine), folder / f"labelsTr/c{number}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "a": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return open_dataset(folder)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ({}, None),
        ({"sform": TURNED}, None),
        ({"sform": None, "sform_code": 0, "qform": TURNED, "qform_code": 1}, None),
        ({"sform_code": 2, "qform": TURNED, "qform_code": 1}, "The sform is used."),
        ({"unit": "micron"}, "expected millimetres in xyzt_units, got micrometres"),
        ({"sform": None, "sform_code": 0, "qform_code": 0}, "The voxel sizes of pixdim are used."),
        ({"pixdim": (0.5, 0.9, 2.5)}, "of the sform in pixdim (x, y, z), got (0.5, 0.9, 2.5)"),
        ({"sform": PLAIN + 0.01 * np.eye(4, k=1)}, "degrees off. The nearest right angles are used."),
    ],
)
def test_pairs_by_nibabel_are_accepted_with_a_warning_of_contradictions(tmp_path, rng, position, words):
    dataset = write_pairs(tmp_path / "data", rng, **position)
    warnings = check_dataset(dataset, context=RunContext(num_workers=0)).warnings
    headers = [warning for warning in warnings if ".nii.gz:" in warning]
    assert bool(headers) == (words is not None)
    if words is not None:
        for case in ("c0", "c1"):
            assert any(words in warning and warning.startswith(f"case {case}: ") for warning in headers)


@pytest.mark.parametrize(
    ("position", "affine", "words"),
    [
        ({}, TURNED, "image and label map differ in"),
        ({"sform_code": 2, "qform": TURNED, "qform_code": 1}, TURNED, "image and label map differ in"),
        ({"sform": SHEARED}, PLAIN, "expected voxel axes at right angles, got axes that are"),
    ],
)
def test_other_pairs_are_faults(tmp_path, rng, position, affine, words):
    dataset = write_pairs(tmp_path / "data", rng, affine_of_labels=affine, **position)
    with pytest.raises(FaultsError) as caught:
        check_dataset(dataset, context=RunContext(num_workers=0))
    assert len(caught.value.faults) == 2
    assert all(words in fault for fault in caught.value.faults)
