"""Position of NIfTI images: the fields that give it, and the fields of written maps."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.imaging import compare_geometry, read_image, read_label_map, write_image, write_label_map
from tests.imaging.nifti_files import PLAIN, SHAPE, affine_of, save, turned

ARRAY = np.arange(60, dtype=np.float32).reshape(SHAPE)
LABELS = (ARRAY % 3).astype(np.uint8)
TURNED = turned(PLAIN, 0.3)
POSITIONS = {
    "both": {},
    "oblique": {"sform": turned(TURNED, 0.2, axis=0)},
    "sform alone": {"qform_code": 0},
    "qform alone": {"sform": None, "sform_code": 0, "qform": TURNED, "qform_code": 1},
    "mirrored qform alone": {
        "sform": None,
        "sform_code": 0,
        "qform": TURNED @ np.diag((-1, 1, 1, 1)),
        "qform_code": 2,
    },
    "aligned sform, scanner qform": {"sform_code": 2, "qform": TURNED, "qform_code": 1},
    "Talairach sform, aligned qform": {"sform_code": 3, "qform": TURNED, "qform_code": 2},
    "no codes": {"sform": None, "sform_code": 0, "qform_code": 0, "pixdim": (0.8, 0.9, 2.5)},
    "micrometres": {"unit": "micron"},
    "metres": {"unit": "meter"},
    "axes 0.4 degrees off": {"sform": PLAIN + 0.0063 * np.eye(4, k=1) * (np.arange(4) == 0)[:, None]},
    "other pixdim": {"pixdim": (0.7, 0.9, 2.0)},
}
FIELDS = (
    "pixdim",
    "xyzt_units",
    "qform_code",
    "sform_code",
    *(f"quatern_{name}" for name in "bcd"),
    *(f"qoffset_{name}" for name in "xyz"),
    *(f"srow_{name}" for name in "xyz"),
)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("position", POSITIONS)
def test_voxels_and_position_equal_those_of_nibabel(tmp_path, position, ending):
    path = save(tmp_path / f"a{ending}", ARRAY, **POSITIONS[position])
    image, expected = read_image(path), nib.load(path)
    np.testing.assert_array_equal(image.array[0], np.asarray(expected.dataobj).T)
    atol = 0.03 if "off" in position else 1e-5
    np.testing.assert_allclose(affine_of(image), expected.affine, atol=atol)
    assert affine_of(image)[:3, 3].tolist() == pytest.approx(expected.affine[:3, 3], abs=1e-6)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("position", POSITIONS)
def test_maps_repeat_the_position_fields_of_their_image(tmp_path, position, ending):
    path = save(tmp_path / f"image{ending}", ARRAY, **POSITIONS[position])
    image = read_image(path)
    write_label_map(tmp_path / f"labels{ending}", LABELS.T, like=image)
    write_image(tmp_path / f"map{ending}", replace(image, array=np.float32(image.array > 3)))
    source = nib.load(path)
    for name in ("labels", "map"):
        written = nib.load(tmp_path / f"{name}{ending}")
        np.testing.assert_array_equal(written.affine, source.affine)
        for field in FIELDS:
            np.testing.assert_array_equal(written.header[field], source.header[field], err_msg=field)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / f"labels{ending}").dataobj), LABELS)
    assert compare_geometry(image, read_label_map(tmp_path / f"labels{ending}")) == []


@pytest.mark.parametrize("position", POSITIONS)
def test_label_maps_saved_with_the_affine_of_nibabel_lie_on_the_grid_of_their_image(tmp_path, position):
    path = save(tmp_path / "image.nii.gz", ARRAY, **POSITIONS[position])
    nib.save(nib.Nifti1Image(LABELS, nib.load(path).affine), tmp_path / "labels.nii.gz")
    assert compare_geometry(read_image(path), read_label_map(tmp_path / "labels.nii.gz")) == []


angles = st.floats(-3.1, 3.1)
offsets = st.floats(-500, 500)
codes = st.integers(0, 4)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(angles, angles, angles, angles),
    sizes=st.tuples(*[st.floats(0.05, 20)] * 3),
    offset=st.tuples(offsets, offsets, offsets),
    flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    codes=st.tuples(codes, codes),
    unit=st.sampled_from(("mm", "micron", "meter", "unknown")),
)
def test_any_position_equals_that_of_nibabel_and_is_written_back(
    tmp_path_factory, angles, sizes, offset, flips, codes, unit
):
    folder = tmp_path_factory.mktemp("nifti")
    sform = np.diag((*np.multiply(sizes, flips), 1))
    for axis in range(3):
        sform = turned(sform, angles[axis], axis=axis)
    sform[:3, 3] = offset
    path = save(
        folder / "a.nii",
        ARRAY,
        sform=sform,
        sform_code=codes[0],
        qform=turned(sform, angles[3]),
        qform_code=codes[1],
        unit=unit,
    )
    image, expected = read_image(path), nib.load(path).affine
    scale = np.abs(expected).max()
    np.testing.assert_allclose(affine_of(image), expected, rtol=1e-3, atol=1e-6 * scale)
    write_label_map(folder / "b.nii", LABELS.T, like=image)
    np.testing.assert_array_equal(nib.load(folder / "b.nii").affine, expected)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ("both", []),
        ("oblique", []),
        ("sform alone", []),
        ("qform alone", []),
        ("aligned sform, scanner qform", ["equal positions in sform and qform", "apart. The sform is used."]),
        ("no codes", ["got none (sform_code and qform_code are 0)", "The voxel sizes of pixdim are used."]),
        ("micrometres", ["expected millimetres in xyzt_units, got micrometres"]),
        ("metres", ["expected millimetres in xyzt_units, got metres"]),
        ("other pixdim", ["of the sform in pixdim (x, y, z), got (0.7, 0.9, 2.0). The sform is used."]),
        ("axes 0.4 degrees off", ["got axes that are 0.4 degrees off. The nearest right angles are used."]),
    ],
)
def test_contradictions_of_a_header_are_warnings(tmp_path, position, words):
    path = save(tmp_path / "a.nii", ARRAY, **POSITIONS[position])
    text = " ".join(read_image(path).warnings)
    assert bool(text) == bool(words)
    for word in words:
        assert word in text
        assert str(path) in text


def test_a_quaternion_longer_than_one_is_a_warning_if_the_sform_is_used(tmp_path):
    path = save(tmp_path / "a.nii", ARRAY)
    image = nib.load(path)
    content = np.asarray(image.dataobj)
    for name in "bcd":
        image.header[f"quatern_{name}"] = 0.9
    path.write_bytes(image.header.binaryblock + bytes(4) + content.tobytes("F"))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(352).tobytes()
    content[112:120] = np.float32([1, 0]).tobytes()
    path.write_bytes(content)
    assert "quaternion longer than 1. The sform is used." in read_image(path).warnings[0]
    content[254:256] = np.int16(0).tobytes()  # sform_code
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"expected a quaternion of length at most 1, got 1\.558"):
        read_image(path)


def test_warnings_of_all_channels_are_kept(tmp_path):
    paths = [
        save(tmp_path / f"a_{number}.nii", ARRAY, unit=unit) for number, unit in enumerate(("mm", "micron"))
    ]
    image = read_image(paths)
    assert len(image.warnings) == 1
    assert "a_1.nii" in image.warnings[0]
    assert image.header is not None


def test_a_changed_grid_is_written_instead_of_the_header_of_the_source(tmp_path):
    image = read_image(save(tmp_path / "a.nii", ARRAY))
    cropped = replace(
        image, array=image.array[:, :, 1:], origin=(image.origin[0], image.origin[1] - 0.9, image.origin[2])
    )
    for changed in (
        cropped,
        replace(image, spacing=(5.0, 1.8, 1.6)),
        replace(image, array=image.array[:, ::-1], direction=(*image.direction[:8], -1.0)),
        replace(image, header=None),
    ):
        write_image(tmp_path / "b.nii.gz", changed)
        np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, affine_of(changed), atol=1e-5)
        written = read_image(tmp_path / "b.nii.gz")
        assert compare_geometry(changed, written) == []
        header = nib.load(tmp_path / "b.nii.gz").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert header.get_xyzt_units() == ("mm", "sec")


def test_written_volumes_lie_at_the_same_place_in_itk(tmp_path):
    for name in ("both", "oblique", "qform alone"):
        image = read_image(save(tmp_path / "a.nii", ARRAY, **POSITIONS[name]))
        write_label_map(tmp_path / "b.nii.gz", LABELS.T, like=replace(image, header=None))
        written = SimpleITK.ReadImage(str(tmp_path / "b.nii.gz"))
        np.testing.assert_allclose(written.GetSpacing(), image.spacing[::-1], rtol=1e-6)
        np.testing.assert_allclose(written.GetOrigin(), image.origin, atol=1e-5)
        np.testing.assert_allclose(written.GetDirection(), image.direction, atol=1e-5)


def test_written_files_are_equal_byte_by_byte(tmp_path):
    image = read_image(save(tmp_path / "a.nii", ARRAY))
    for name in ("b.nii.gz", "c.nii.gz"):
        write_label_map(tmp_path / name, LABELS.T, like=image)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 1, 40000), np.uint8), "at most 32767 voxels along each axis for NIfTI"),
        (np.zeros((1, 2, 3), np.float16), "got float16"),
    ],
)
def test_images_that_nifti_cannot_hold_are_refused(tmp_path, array, words):
    image = read_image(save(tmp_path / "a.nii", ARRAY))
    with pytest.raises(InputError, match=words):
        write_image(tmp_path / "b.nii", replace(image, array=array[np.newaxis]))
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_slices_of_two_axes(tmp_path, angle):
    affine = turned(PLAIN, angle)
    path = save(tmp_path / "a.nii", ARRAY[..., 0], sform=affine)
    image = read_image(path)
    assert image.spacing == pytest.approx((0.9, 0.8))
    assert image.origin == pytest.approx((-30.5 * np.cos(angle) - 20.25 * np.sin(angle), -affine[1, 3]))
    write_label_map(tmp_path / "b.nii", LABELS[..., 0].T, like=image)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").affine, nib.load(path).affine)
    out_of_plane = save(tmp_path / "c.nii", ARRAY[..., 0], sform=turned(PLAIN, np.pi / 2, axis=0))
    assert read_image(out_of_plane).direction == (1, 0, 0, 1)
