"""A volume of abdominal MRI as a series and as NIfTI gives the same voxels, and comes back as DICOM-SEG."""

import highdicom
import numpy as np
import torch

from scanseg.imaging import read_image, write_image
from scanseg.inference import Predictor
from scanseg.specs import DatasetSpec
from tests.dicom_series import write_series
from tests.factories import Threshold, make_plan, plain_unet


def test_a_real_volume(shared_data, tmp_path):
    source = read_image(sorted((shared_data / "chaos-mr/imagesTr").iterdir())[0])
    direction = np.reshape(source.direction, (3, 3))
    volume = source.array[0].astype(np.int16)
    np.testing.assert_array_equal(volume, source.array[0])
    volume = volume[:, ::2, ::2]
    spacing = (source.spacing[0], 2 * source.spacing[1], 2 * source.spacing[2])
    grid = {"spacing": spacing, "origin": source.origin, "direction": tuple(direction.ravel())}
    write_series(tmp_path / "images/case", volume, reverse=True, **grid)
    series = read_image(tmp_path / "images/case")
    (tmp_path / "nifti").mkdir()
    write_image(tmp_path / "nifti/case.nii.gz", series)
    flip = slice(None, None, int(np.sign(np.linalg.det(direction))))
    np.testing.assert_array_equal(series.array[0], volume[flip])

    dataset = DatasetSpec(
        name="mri", channel_names=("MRI",), labels={"background": 0, "bright": 1}, file_ending=".nii.gz"
    )
    plan = make_plan(
        plain_unet(3),
        dataset=dataset,
        num_axes=3,
        patch_size=(16, 64, 64),
        preprocessing={"orientation": "RAS", "crop_to_nonzero": True, "spacing": (6.0, 3.0, 3.0)},
    )
    predictor = Predictor(plan, Threshold(2), device=torch.device("cpu"))
    for folder in ("images", "nifti"):
        predictor.predict_folder(tmp_path / folder, tmp_path / f"{folder}-out")
    predictor.predict_folder(tmp_path / "images", tmp_path / "seg", format="dicom-seg")
    labels = read_image(tmp_path / "images-out/case.nii.gz").array
    assert 0.01 < labels.mean() < 0.9
    np.testing.assert_array_equal(read_image(tmp_path / "nifti-out/case.nii.gz").array, labels)
    volume = highdicom.seg.segread(tmp_path / "seg/case.dcm").get_volume(combine_segments=True)
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(series.direction, (3, 3)) * np.asarray(series.spacing)[::-1])[:, ::-1]
    affine[:3, 3] = series.origin
    ours = highdicom.Volume(
        array=labels[0],
        affine=affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=volume.frame_of_reference_uid,
    )
    np.testing.assert_array_equal(volume.match_geometry(ours).array, labels[0])
