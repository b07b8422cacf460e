"""Maps of NIfTI images lie where their image does, for every way of placing it."""

import nibabel as nib
import numpy as np
import pytest

from scanseg.specs import PredictionRecord
from tests.imaging.nifti_files import PLAIN, save, turned

TURNED = turned(PLAIN, 0.3)
POSITIONS = {
    "plain": {},
    "oblique": {"sform": TURNED},
    "qform": {"sform": None, "sform_code": 0, "qform": TURNED, "qform_code": 1},
    "forms": {"sform_code": 2, "qform": TURNED, "qform_code": 1},
    "micron": {"unit": "micron"},
    "mirrored": {"sform": TURNED @ np.diag((-1, 1, -1, 1))},
    "nearly": {"sform": PLAIN + 0.005 * np.eye(4, k=1) * (np.arange(4) == 0)[:, None]},
    "nocodes": {"sform": None, "sform_code": 0, "qform_code": 0, "pixdim": (0.8, 0.9, 2.5)},
}


@pytest.mark.parametrize("orientation", [None, "RAS", "PSL"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_every_map_has_the_affine_of_its_image(make_predictor, tmp_path, rng, ending, orientation):
    arrays = {}
    (tmp_path / "in").mkdir()
    for name, position in POSITIONS.items():
        arrays[name] = rng.integers(0, 2, (10, 9, 8)).astype(np.float32)
        save(tmp_path / "in" / f"{name}_0000{ending}", arrays[name], **position)
    predictor = make_predictor(
        dataset={"file_ending": ending},
        preprocessing={"orientation": orientation},
        inference={"mirror_axes": (0,)},
    )
    record = predictor.predict_folder(tmp_path / "in", tmp_path / "out", mirror=True, uncertainty=True)
    warnings = {case.case: case.warning or "" for case in record.cases}
    for name, array in arrays.items():
        source = nib.load(tmp_path / "in" / f"{name}_0000{ending}")
        label_map = nib.load(tmp_path / "out" / f"{name}{ending}")
        np.testing.assert_array_equal(np.asarray(label_map.dataobj), array)
        for folder in (".", "entropy", "disagreement"):
            written = nib.load(tmp_path / "out" / folder / f"{name}{ending}")
            np.testing.assert_array_equal(written.affine, source.affine)
            for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_d", "srow_x"):
                np.testing.assert_array_equal(written.header[field], source.header[field])
    assert warnings["plain"] == warnings["oblique"] == warnings["qform"] == warnings["mirrored"] == ""
    assert "The sform is used." in warnings["forms"]
    assert "got micrometres" in warnings["micron"]
    assert "degrees off" in warnings["nearly"]
    assert "The voxel sizes of pixdim are used." in warnings["nocodes"]
    assert PredictionRecord.read(tmp_path / "out" / "prediction.json") == record


def test_a_map_of_a_4d_image_has_the_position_of_its_volume(make_predictor, tmp_path, rng):
    array = rng.integers(0, 2, (10, 9, 8, 2)).astype(np.float32)
    image = nib.Nifti1Image(array, TURNED)
    image.header["pixdim"][4] = 2.5
    nib.save(image, tmp_path / "a.nii.gz")
    predictor = make_predictor(dataset={"channel_names": ("T1", "T2")}, preprocessing={"orientation": "RAS"})
    predictor.predict_folder(tmp_path / "a.nii.gz", tmp_path / "out")
    label_map = nib.load(tmp_path / "out" / "a.nii.gz")
    assert label_map.shape == (10, 9, 8)
    np.testing.assert_array_equal(label_map.affine, nib.load(tmp_path / "a.nii.gz").affine)
