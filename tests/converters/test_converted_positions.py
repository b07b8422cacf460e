"""Converted NIfTI images and label maps lie where their source does."""

import nibabel as nib
import numpy as np
import pytest

from tests.imaging.nifti_files import PLAIN, save, turned

from . import forms

TURNED = turned(PLAIN, 0.3)


@pytest.mark.parametrize(
    "position",
    [
        {"sform": TURNED},
        {"sform": None, "sform_code": 0, "qform": TURNED, "qform_code": 1},
        {"sform_code": 2, "qform": TURNED, "qform_code": 1},
        {"sform_code": 4, "unit": "micron"},
        {"sform": PLAIN + 0.005 * np.eye(4, k=1) * (np.arange(4) == 0)[:, None]},
    ],
)
def test_converted_files_repeat_the_position_of_their_source(tmp_path, rng, position):
    root = tmp_path / "source"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    image = rng.normal(size=(8, 9, 7)).astype(np.float32)
    source = save(root / "imagesTr" / "p_00.nii.gz", image, **position)
    save(root / "labelsTr" / "p_00.nii.gz", np.uint8(image > 0), **position)
    forms.describe(
        root,
        name="PART",
        modality={"0": "T2"},
        labels={"0": "background", "1": "part"},
        training=[{"image": "./imagesTr/p_00.nii.gz", "label": "./labelsTr/p_00.nii.gz"}],
        test=[],
    )
    _, dataset = forms.convert("msd", root, tmp_path / "out")
    expected = nib.load(source)
    for path in (*dataset.cases[0].images, dataset.cases[0].label_map):
        written = nib.load(path)
        np.testing.assert_array_equal(written.affine, expected.affine)
        for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_d", "srow_x"):
            np.testing.assert_array_equal(written.header[field], expected.header[field])
