"""Damaged NIfTI files: refused by name, or read as nibabel reads them."""

import gzip
import io
import logging
import struct
import tracemalloc
import warnings

import nibabel as nib
import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image
from scanseg.imaging.streams import MAX_GZIP_RATIO
from tests.imaging.nifti_files import PLAIN, affine_of, save, turned

NUM_MUTATIONS = 400
ARRAY = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim[0]": (40, "h"),
    "dim[1]": (42, "h"),
    "dim[2]": (44, "h"),
    "dim[3]": (46, "h"),
    "dim[4]": (48, "h"),
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim[0]": (76, "f"),
    "pixdim[1]": (80, "f"),
    "pixdim[2]": (84, "f"),
    "pixdim[3]": (88, "f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern_b": (256, "f"),
    "quatern_c": (260, "f"),
    "quatern_d": (264, "f"),
    "qoffset_x": (268, "f"),
    "srow_x[0]": (280, "f"),
    "srow_y[1]": (300, "f"),
    "srow_z[3]": (324, "f"),
    "magic": (344, "i"),
    "extension": (348, "i"),
}
"""Place and type of header fields."""
VALUES = {
    "i": (0, 1, -1, 347, 540, 348 << 16, 2**31 - 1),
    "h": (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 64, 128, 255, 512, 1007, 1024, -1, -3, 32767, -32768),
    "f": (0, 1, -1, 2, 0.5, 353, 352.5, 1e9, -1e9, 3e38, 1e-30, 351, 348, np.nan, np.inf, -np.inf),
    "B": (0, 1, 2, 3, 4, 7, 255),
}
"""Values to write into fields of each type."""


def with_field(content: bytes, name: str, value: float) -> bytes:
    """Return the content with another value in a header field."""
    place, kind = FIELDS[name]
    changed = bytearray(content)
    struct.pack_into(f"<{kind}", changed, place, value)
    return bytes(changed)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with one to three changed fields, changed bytes, or another length."""
    kind = rng.integers(4)
    if kind == 0:
        changed = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(0, 352, rng.integers(1, 5))
        changed[places] = rng.integers(0, 256, len(places))
        return changed.tobytes()
    if kind == 1:
        return content[: rng.integers(len(content))] if rng.random() < 0.7 else content + rng.bytes(40)
    for name in rng.choice([*FIELDS], rng.integers(1, 4), replace=False):
        values = VALUES[FIELDS[name][1]]
        content = with_field(content, name, values[rng.integers(len(values))])
    return content


def read_by_nibabel(path):
    """Return voxels and affine by nibabel, or `None` if it refuses the file."""
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nib.load(path)
            return np.asarray(image.dataobj), image.affine
    except Exception:
        return None
    finally:
        logging.disable(logging.NOTSET)


def read_or_refuse(path):
    """Return the number of channels and the image, or the message of the error."""
    try:
        return count_channels(path), read_image(path)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("form", ["sform", "qform", "gzip", "big endian"])
def test_a_changed_header_is_refused_or_read_as_by_nibabel(tmp_path, form, capfd, caplog):
    rng = np.random.default_rng(13)
    path = save(
        tmp_path / "a.nii",
        ARRAY,
        sform=PLAIN if form != "qform" else None,
        sform_code=1 if form != "qform" else 0,
        qform=turned(PLAIN, 0.3),
        qform_code=1,
    )
    content, suffix = path.read_bytes(), ".nii.gz" if form == "gzip" else ".nii"
    if form == "big endian":
        header = nib.load(path).header.as_byteswapped(">")
        header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
        content = header.binaryblock + bytes(4) + ARRAY.astype(">i2").tobytes("F")
    accepted = 0
    for number in range(NUM_MUTATIONS // 4):
        path = tmp_path / f"{number}{suffix}"
        changed = mutate(content, rng)
        path.write_bytes(gzip.compress(changed, 1) if form == "gzip" else changed)
        expected = read_by_nibabel(path)
        read = read_or_refuse(path)
        if isinstance(read, str):
            assert str(path) in read
            assert len(read) < 400 + len(str(path))
            continue
        num_channels, image = read
        assert expected is not None, f"{path}: nibabel refuses this file"
        voxels, affine = expected
        accepted += 1
        assert image.num_channels == num_channels
        np.testing.assert_array_equal(
            image.array.ravel(), voxels.astype(image.array.dtype).ravel("F"), err_msg=str(path)
        )
        if image.num_axes == 3:
            atol = 0.02 * max(image.spacing)
            np.testing.assert_allclose(affine_of(image), affine, rtol=1e-3, atol=atol, err_msg=str(path))
    assert 10 < accepted < 80
    assert capfd.readouterr().err == ""
    assert caplog.records == []


DAMAGES = [
    ("sizeof_hdr", 0, "expected a header of 348 bytes, got 0"),
    ("sizeof_hdr", 540, "expected NIfTI-1, got NIfTI-2"),
    ("magic", int.from_bytes(b"ni1\0", "little"), r"header of a \.hdr/\.img pair"),
    ("magic", 0, "expected the magic 'n\\+1'"),
    ("magic", int.from_bytes(b"n+2\0", "little"), "expected the magic 'n\\+1'"),
    ("dim[0]", 0, "dim: expected 1 to 7 axes, got 0"),
    ("dim[0]", 8, "dim: expected 1 to 7 axes, got 8"),
    ("dim[0]", -3, "dim: expected 1 to 7 axes, got -3"),
    ("dim[1]", 0, r"dim: expected sizes above 0, got \(0, 4, 3\)"),
    ("dim[3]", -3, r"dim: expected sizes above 0, got \(5, 4, -3\)"),
    ("dim[3]", 32767, "truncated: expected 1311032 bytes"),
    ("bitpix", 8, "bitpix: expected 16"),
    ("vox_offset", np.nan, "vox_offset: expected a whole number from 352 to 268435456, got nan"),
    ("vox_offset", np.inf, "vox_offset: expected a whole number .*, got inf"),
    ("vox_offset", -1, "vox_offset: expected a whole number .*, got -1"),
    ("vox_offset", 0, "vox_offset: expected a whole number .*, got 0"),
    ("vox_offset", 348, "vox_offset: expected a whole number .*, got 348"),
    ("vox_offset", 352.5, "vox_offset: expected a whole number .*, got 352.5"),
    ("vox_offset", 3e38, "vox_offset: expected a whole number .*, got 3e\\+38"),
    ("vox_offset", 368, "truncated: expected 488 bytes from its header, got at most 472"),
    ("vox_offset", 4096, "truncated: expected 3744 bytes before its voxels"),
    ("pixdim[0]", np.nan, "pixdim: expected finite numbers, got nan"),
    ("pixdim[2]", np.nan, "pixdim: expected finite numbers"),
    ("pixdim[3]", np.inf, "pixdim: expected finite numbers"),
    ("scl_inter", np.nan, "finite numbers in scl_slope and scl_inter, got 1 and nan"),
    ("scl_slope", np.inf, "finite numbers in scl_slope and scl_inter, got inf"),
    ("scl_inter", -np.inf, "finite numbers in scl_slope and scl_inter, got 1 and -inf"),
    ("srow_x[0]", np.nan, "sform: expected finite numbers, got nan"),
    ("srow_z[3]", np.inf, "sform: expected finite numbers"),
    ("srow_x[0]", 0, "expected voxel axes of finite length above 0 mm"),
    ("quatern_b", np.nan, "qform: expected finite numbers, got nan"),
    ("qoffset_x", np.inf, "qform: expected finite numbers"),
    ("sform_code", -1, "sform_code: expected one of .*, got -1"),
    ("qform_code", 77, "qform_code: expected one of .*, got 77"),
    ("extension", 1, None),
]


@pytest.mark.parametrize(("name", "value", "words"), DAMAGES)
def test_each_damaged_field_is_named(tmp_path, name, value, words):
    path = save(tmp_path / "a.nii", ARRAY)
    path.write_bytes(with_field(path.read_bytes(), name, value))
    if words is None:
        np.testing.assert_array_equal(read_image(path).array[0], ARRAY.T)
        return
    with pytest.raises(InputError, match=words):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("pixdim[1]", 0, "expected spacings above 0 mm in pixdim, got 0"),
        ("quatern_c", 1.5, "expected a quaternion of length at most 1, got 1.5"),
        ("quatern_c", -3e38, "expected a quaternion of length at most 1"),
    ],
)
def test_each_damaged_field_of_a_qform_is_named(tmp_path, name, value, words):
    path = save(tmp_path / "a.nii", ARRAY, sform=None, sform_code=0, qform=PLAIN, qform_code=1)
    path.write_bytes(with_field(path.read_bytes(), name, value))
    with pytest.raises(InputError, match=words):
        read_image(path)


def test_a_negative_voxel_size_is_read_without_its_sign(tmp_path):
    path = save(tmp_path / "a.nii", ARRAY, sform=None, sform_code=0, qform=turned(PLAIN, 0.3), qform_code=1)
    path.write_bytes(with_field(path.read_bytes(), "pixdim[2]", -0.9))
    image = read_image(path)
    np.testing.assert_allclose(affine_of(image), read_by_nibabel(path)[1], atol=1e-5)
    assert "got (0.8, -0.9, 2.5). The sign is ignored." in image.warnings[0]


def test_nifti2_is_refused_by_name(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        nib.save(nib.Nifti2Image(ARRAY, PLAIN), tmp_path / name)
        with pytest.raises(InputError, match=r"expected NIfTI-1, got NIfTI-2\. Save it as NIfTI-1"):
            read_image(tmp_path / name)


def test_damaged_extensions_are_refused(tmp_path):
    image = nib.Nifti1Image(ARRAY, PLAIN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text" * 40))
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    for size in (0, -16, 10**9, 2**31 - 1, 7):
        struct.pack_into("<i", content, 352, size)
        (tmp_path / "a.nii").write_bytes(content)
        with pytest.raises(InputError, match="expected valid header extensions"):
            read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_damaged_compressed_data_is_refused(tmp_path, rng, place):
    array = rng.integers(0, 1000, (50, 40, 30), dtype=np.int16)
    path = save(tmp_path / "a.nii.gz", array)
    content = path.read_bytes()
    position = int(len(content) * place)
    path.write_bytes(content[:position])
    with pytest.raises(InputError, match="truncated: expected"):
        read_image(path)
    changed = bytearray(content)
    changed[position] ^= 0x10
    path.write_bytes(changed)
    with pytest.raises(InputError, match=r"a\.nii\.gz: (damaged|truncated|.*expected)"):
        read_image(path)


@pytest.mark.parametrize("lost", range(1, 9))
def test_a_lost_or_changed_checksum_is_refused(tmp_path, rng, lost):
    path = save(tmp_path / "a.nii.gz", rng.integers(0, 1000, (20, 20, 20), dtype=np.int16))
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    with pytest.raises(InputError, match="truncated: expected a checksum"):
        read_image(path)
    changed = bytearray(content)
    changed[-lost] ^= 1
    path.write_bytes(changed)
    with pytest.raises(InputError, match="damaged: the compressed data, or its checksum, is wrong"):
        read_image(path)


def test_bytes_after_the_compressed_data_are_a_warning(tmp_path):
    path = save(tmp_path / "a.nii.gz", ARRAY)
    path.write_bytes(path.read_bytes() + b"no gzip data")
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], ARRAY.T)
    assert "expected no bytes after the voxels, got 12" in image.warnings[0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_size_that_the_file_cannot_hold_is_refused_before_memory_is_allocated(tmp_path, suffix):
    path = save(tmp_path / "a.nii", ARRAY)
    content = path.read_bytes()
    for name in ("dim[1]", "dim[2]", "dim[3]"):
        content = with_field(content, name, 32767)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    count_channels(path)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"truncated: expected 7036\d+ bytes from its header, got at most"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_an_image_larger_than_the_memory_of_the_computer_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii.gz", np.zeros((100, 100, 50), np.int16))
    monkeypatch.setattr("scanseg.imaging.nifti.physical_memory", lambda: 999_999)
    with pytest.raises(InputError, match="at most the 999999 bytes of this computer's memory, got 1000000"):
        read_image(path)


def test_the_largest_compression_is_within_the_bound():
    content = bytes(1 << 24)
    assert len(content) < len(gzip.compress(content, 9)) * MAX_GZIP_RATIO


def test_reading_needs_the_memory_of_one_copy(tmp_path, rng):
    array = rng.integers(0, 9, (200, 200, 100), dtype=np.int16)
    for suffix in (".nii", ".nii.gz"):
        path = save(tmp_path / f"a{suffix}", array)
        read_image(path)
        tracemalloc.start()
        read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.2 * array.nbytes


def test_a_stream_of_many_small_members(tmp_path, rng):
    content = save(tmp_path / "a.nii", rng.integers(0, 99, (30, 20, 10), dtype=np.int16)).read_bytes()
    members = io.BytesIO()
    for begin in range(0, len(content), 100):
        members.write(gzip.compress(content[begin : begin + 100]))
    (tmp_path / "b.nii.gz").write_bytes(members.getvalue())
    expected = read_image(tmp_path / "a.nii").array
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array, expected)
