"""Voxel axes that are not quite at right angles, in every format with a position."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.imaging import compare_geometry, read_image, read_label_map, write_label_map
from scanseg.imaging.right_angles import straighten_axes
from tests.imaging.nifti_files import PLAIN, save, turned

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
ARRAY = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
TURNED = turned(PLAIN, 0.3)


def write(path: Path, affine: np.ndarray, array: np.ndarray = ARRAY) -> Path:
    """Write an array (x, y, z) whose voxel axes may be at any angle."""
    if ".nii" in path.name:
        return save(path, array, sform=affine)
    itk = np.diag((-1, -1, 1, 1)) @ affine
    sizes = np.linalg.norm(itk[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(sizes)
    image.SetDirection((itk[:3, :3] / sizes).ravel())
    image.SetOrigin(itk[:3, 3])
    SimpleITK.WriteImage(image, str(path))
    return path


def sheared(degrees: float, first: int = 0, second: int = 1) -> np.ndarray:
    """Return an affine with one voxel axis tilted towards another one."""
    shear = np.eye(4)
    shear[first, second] = np.tan(np.radians(degrees))
    sizes = np.diag((*np.linalg.norm(TURNED[:3, :3], axis=0), 1))
    return TURNED @ np.linalg.inv(sizes) @ shear @ sizes


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("degrees", [0.02, 0.1, -0.5, 0.95])
def test_angles_up_to_one_degree_are_read_with_a_warning(tmp_path, ending, degrees, capfd):
    image = read_image(write(tmp_path / f"a{ending}", sheared(degrees)))
    direction = np.reshape(image.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(
        image.spacing, np.linalg.norm(sheared(degrees)[:3, :3], axis=0)[::-1], rtol=5e-4
    )
    (warning,) = [each for each in image.warnings if "right angles" in each]
    assert (
        f"a{ending}: expected voxel axes at right angles, got axes that are {abs(degrees):.2g} deg" in warning
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("degrees", "axes"), [(15, (1, 2)), (-20, (0, 2)), (5, (0, 1)), (1.1, (1, 2)), (80, (1, 2))]
)
def test_sheared_axes_are_refused_with_the_remedy(tmp_path, ending, degrees, axes, capfd):
    path = write(tmp_path / f"a{ending}", sheared(degrees, *axes))
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert (
        f"a{ending}: expected voxel axes at right angles, got axes that are {abs(degrees):.3g} deg" in message
    )
    assert (
        "Resample the image to orthogonal axes, such as with nibabel.processing.resample_to_output" in message
    )
    assert "ITK ERROR" not in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ENDINGS)
def test_right_angles_are_kept_without_a_warning(tmp_path, ending):
    for affine in (PLAIN, TURNED, turned(TURNED, 1.2, axis=0), TURNED @ np.diag((1, 1, -1, 1))):
        image = read_image(write(tmp_path / f"a{ending}", affine))
        itk = np.diag((-1, -1, 1, 1)) @ affine
        np.testing.assert_allclose(
            np.reshape(image.direction, (3, 3)) * image.spacing[::-1], itk[:3, :3], atol=1e-6
        )
        assert image.warnings == ()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_label_maps_have_the_stored_axes_of_their_image(tmp_path, ending):
    path = write(tmp_path / f"image{ending}", sheared(0.4))
    image = read_image(path)
    write_label_map(tmp_path / f"labels{ending}", np.uint8(ARRAY > 3).T, like=image)
    assert compare_geometry(image, read_label_map(tmp_path / f"labels{ending}")) == []
    if ".nii" in ending:
        np.testing.assert_array_equal(nib.load(tmp_path / f"labels{ending}").affine, nib.load(path).affine)
    else:
        stored, written = (
            SimpleITK.ReadImage(str(tmp_path / f"{name}{ending}")) for name in ("image", "labels")
        )
        np.testing.assert_allclose(written.GetDirection(), stored.GetDirection(), atol=1e-12)
        np.testing.assert_allclose(written.GetSpacing(), stored.GetSpacing(), rtol=1e-12)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_damaged_directions_of_text_headers_are_refused_in_plain_words(tmp_path, ending, capfd):
    path = write(tmp_path / f"a{ending}", TURNED)
    lines = path.read_text().splitlines()
    field = "space directions" if ending == ".nhdr" else "TransformMatrix"
    for numbers in (["0"] * 9, ["1", "0"], ["1", "0", "0", "2", "0", "0", "0", "0", "1"], ["nan", "0", "0"]):
        if ending == ".nhdr":
            vectors = [numbers[begin : begin + 3] for begin in range(0, len(numbers), 3)]
            changed = f"{field}: {' '.join('(' + ','.join(vector) + ')' for vector in vectors)}"
        else:
            changed = f"{field} = {' '.join(numbers)}"
        path.write_text("\n".join(changed if line.startswith(field) else line for line in lines) + "\n")
        with pytest.raises(InputError, match=rf"a\{ending}") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
        assert "ITK" not in str(caught.value).replace("SimpleITK", "")
        assert len(str(caught.value)) < 400 + len(str(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (1.015, True), (1.05, False), (2.0, False)])
def test_direction_cosines_of_another_length_than_one(tmp_path, factor, accepted):
    path = write(tmp_path / "a.mhd", PLAIN)
    content = path.read_text()
    line = next(each for each in content.splitlines() if each.startswith("TransformMatrix"))
    path.write_text(content.replace(line, f"TransformMatrix = {factor} 0 0 0 1 0 0 0 1"))
    if accepted:
        assert read_image(path).spacing == pytest.approx((2.5, 0.9, 0.8 * factor))
    else:
        with pytest.raises(
            InputError, match=r"direction cosines of length 1 .*, got \[\d\.\d+, 1\.0, 1\.0\]"
        ):
            read_image(path)


angles = st.floats(-3.1, 3.1)


@settings(max_examples=100, deadline=None)
@given(
    turns=st.tuples(angles, angles, angles),
    sizes=st.tuples(*[st.floats(0.01, 100)] * 3),
    shears=st.tuples(*[st.floats(-0.007, 0.007)] * 3),
    mirrored=st.booleans(),
)
def test_straightened_axes_are_the_nearest_ones(turns, sizes, shears, mirrored):
    columns = np.diag((1, 1, -1 if mirrored else 1, 1.0))
    for axis in range(3):
        columns = turned(columns, turns[axis], axis=axis)
    columns = (
        columns[:3, :3] @ (np.eye(3) + np.array([[0, *shears[:2]], [0, 0, shears[2]], [0, 0, 0]])) * sizes
    )
    axes = straighten_axes(Path("a.nii"), columns)
    np.testing.assert_allclose(axes.direction.T @ axes.direction, np.eye(3), atol=2e-6)
    np.testing.assert_allclose(axes.sizes, np.linalg.norm(columns, axis=0))
    assert np.linalg.det(axes.direction) * np.linalg.det(columns) > 0
    distance = np.linalg.norm(axes.direction - columns / axes.sizes)
    for axis in range(3):
        for angle in (-1e-3, 1e-3):
            other = turned(np.eye(4), angle, axis=axis)[:3, :3] @ axes.direction
            assert distance <= np.linalg.norm(other - columns / axes.sizes) + 1e-6
