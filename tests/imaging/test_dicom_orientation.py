"""A blob of a series lies at the same place in the image, in a prediction, and in a DICOM Segmentation."""

import shutil
from itertools import permutations, product

import highdicom
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.pixels import pixel_array

from scanseg.imaging import direction_of, read_image
from scanseg.inference import Predictor
from scanseg.specs import DatasetSpec
from tests.dicom_series import make_series, save
from tests.factories import Threshold, make_plan, plain_unet

ALL = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]
LABELS = {"background": 0, "blob": 1}


def make_predictor(orientation):
    dataset = DatasetSpec(name="blobs", channel_names=("MRI",), labels=LABELS, file_ending=".nii.gz")
    steps = {"orientation": orientation, "normalizations": ({"kind": "none"},), "crop_to_nonzero": False}
    plan = make_plan(plain_unet(3), dataset=dataset, num_axes=3, patch_size=(8, 8, 8), preprocessing=steps)
    return Predictor(plan, Threshold(2), device=torch.device("cpu"))


def centre_of(mask, *, spacing, origin, direction):
    """Return the physical centre of a mask (z, y, x) in mm along x, y, z."""
    index = np.argwhere(mask).mean(axis=0)[::-1]
    return np.asarray(origin) + np.reshape(direction, (3, 3)) @ (index * np.asarray(spacing)[::-1])


def rotation(angles):
    """Return the matrix of rotations about x, y, z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@st.composite
def volumes(draw):
    """Draw a volume with a blob, its grid, and the order and names of its files."""
    shape = tuple(draw(st.integers(3, 7)) for _ in range(3))
    corner = [draw(st.integers(0, size - 1)) for size in shape]
    volume = np.zeros(shape, np.int16)
    volume[tuple(slice(start, start + draw(st.integers(1, 3))) for start in corner)] = 1
    tilt = draw(st.sampled_from([0.0, 0.35, 0.7]))
    direction = rotation([tilt * draw(st.floats(-1, 1)) for _ in range(3)]) @ np.reshape(
        direction_of(draw(st.sampled_from(ALL))), (3, 3)
    )
    return {
        "volume": volume,
        "spacing": tuple(draw(st.floats(0.4, 6)) for _ in range(3)),
        "origin": tuple(draw(st.floats(-400, 400)) for _ in range(3)),
        "direction": tuple(direction.ravel()),
        "reverse": draw(st.booleans()),
        "names": draw(st.permutations(range(shape[0]))),
    }


def write(folder, drawn):
    """Write the series of a drawn volume, and return the place of its blob in mm."""
    shutil.rmtree(folder, ignore_errors=True)
    grid = {name: drawn[name] for name in ("spacing", "origin", "direction")}
    for name, dataset in zip(
        drawn["names"], make_series(drawn["volume"], reverse=drawn["reverse"], **grid), strict=True
    ):
        save(dataset, folder / f"{name:02d}.dcm")
    return centre_of(drawn["volume"], **grid)


def place_in(image, mask):
    return centre_of(mask, spacing=image.spacing, origin=image.origin, direction=image.direction)


def blob_of_segmentation(path):
    """Return the physical centre of a segmentation, from its frames alone."""
    dataset = dcmread(path)
    pixels = pixel_array(dataset, allow_excess_frames=False)  # padding of few bits looks like frames
    frames = pixels.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    y_size, x_size = shared.PixelMeasuresSequence[0].PixelSpacing
    points = []
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        start = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points += [start + x * x_size * row + y * y_size * column for y, x in np.argwhere(frame)]
    return np.mean(points, axis=0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=volumes(), orientation=st.sampled_from(ALL))
def test_the_place_of_a_blob(tmp_path, drawn, orientation):
    """Through reading, prediction, NIfTI and DICOM-SEG, within half a voxel (here: a thousandth of a mm)."""
    place = write(tmp_path / "series", drawn)
    image = read_image(tmp_path / "series")
    np.testing.assert_allclose(place_in(image, image.array[0]), place, atol=1e-3)
    assert np.linalg.det(np.reshape(image.direction, (3, 3))) == pytest.approx(1)

    predictor = make_predictor(orientation)
    for format, name in ((None, "series.nii.gz"), ("dicom-seg", "series.dcm")):
        output = tmp_path / f"out-{format}"
        shutil.rmtree(output, ignore_errors=True)
        predictor.predict_folder(tmp_path / "series", output, format=format)
        if format is None:
            label_map = read_image(output / name)
            np.testing.assert_array_equal(label_map.array[0], image.array[0])
            found = place_in(label_map, label_map.array[0])
        else:
            found = blob_of_segmentation(output / name)
        np.testing.assert_allclose(found, place, atol=1e-3)


@pytest.mark.parametrize("codes", ALL)
def test_all_48_orientations(tmp_path, codes):
    """Each voxel of a volume without symmetry."""
    rng = np.random.default_rng(0)
    volume = (rng.random((3, 4, 5)) > 0.5).astype(np.int16)
    drawn = {
        "volume": volume,
        "spacing": (3.0, 0.5, 0.75),
        "origin": (10.0, -20.0, 30.0),
        "direction": direction_of(codes),
        "reverse": False,
        "names": (1, 2, 0),
    }
    write(tmp_path / "series", drawn)
    image = read_image(tmp_path / "series")
    for index in np.ndindex(volume.shape):
        mask = np.zeros(volume.shape)
        mask[index] = 1
        place = centre_of(mask, **{name: drawn[name] for name in ("spacing", "origin", "direction")})
        steps = np.reshape(image.direction, (3, 3)).T @ (place - image.origin)
        ours = tuple(np.rint(steps / np.asarray(image.spacing)[::-1]).astype(int)[::-1])
        assert image.array[(0, *ours)] == volume[index]

    make_predictor("RAS").predict_folder(tmp_path / "series", tmp_path / "out", format="dicom-seg")
    segmentation = highdicom.seg.segread(tmp_path / "out/series.dcm")
    ours = highdicom.Volume(
        array=image.array[0].astype(np.uint8),
        affine=affine_of(image),
        coordinate_system="PATIENT",
        frame_of_reference_uid=segmentation.FrameOfReferenceUID,
    )
    theirs = segmentation.get_volume(combine_segments=True).match_geometry(ours)
    np.testing.assert_array_equal(theirs.array, ours.array)


def affine_of(image):
    """Return the matrix from index (z, y, x) to mm (x, y, z)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.direction, (3, 3)) * np.asarray(image.spacing)[::-1])[:, ::-1]
    affine[:3, 3] = image.origin
    return affine
