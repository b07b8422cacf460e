"""Numbers and units of positions in MetaImage and NRRD headers."""

import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.imaging import read_geometry, read_image
from tests.factories import write_volume

ARRAY = np.arange(126, dtype=np.int16).reshape(3, 6, 7)


def write_with(path, changes):
    """Write a volume, and replace lines of its header by their first word. An empty line is removed."""
    write_volume(path, ARRAY)
    content = path.read_bytes()
    head, voxels = content[: -ARRAY.nbytes], content[-ARRAY.nbytes :]
    lines = head.split(b"\n")
    for name, line in changes.items():
        number = next(number for number, each in enumerate(lines) if each.startswith(name.encode()))
        lines[number : number + 1] = [line.encode()] if line else []
    path.write_bytes(b"\n".join(lines) + voxels)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "a.mha",
            {"ElementSpacing": "ElementSpacing = 0,75 0,5 3"},
            "ElementSpacing, 3 together, got '0,75 0,5 3'",
        ),
        ("a.mha", {"ElementSpacing": "ElementSpacing = nan 0.5 3"}, "finite numbers .* in ElementSpacing"),
        ("a.mha", {"ElementSpacing": "ElementSpacing = 0.75 0.5"}, "ElementSpacing, 3 together"),
        ("a.mha", {"Offset": "Offset = 1,5 2,5 0"}, "Offset, 3 together, got '1,5 2,5 0'"),
        ("a.mha", {"Offset": "Offset = nan 0 0"}, "finite numbers .* in Offset"),
        ("a.mha", {"Offset": "Offset = 0 inf 0"}, "finite numbers .* in Offset"),
        (
            "a.mha",
            {"TransformMatrix": "TransformMatrix = 1 0 0 0 1 0 0 0 nan"},
            "TransformMatrix, 9 together",
        ),
        ("a.mha", {"NDims": "NDims = 3\nNDims = 2"}, "one value of NDims, got '3' and '2'"),
        (
            "a.nrrd",
            {"space directions": "space directions: (0,75,0,0) (0,0,5,0) (0,0,3)"},
            "space directions",
        ),
        ("a.nrrd", {"space origin": "space origin: (1,5,0,0)"}, "space origin, 3 together"),
        ("a.nrrd", {"space origin": "space origin: (nan,nan,nan)"}, "finite numbers .* in space origin"),
        (
            "a.nrrd",
            {"space directions": "space directions: (nan,nan,nan) (0,1,0) (0,0,1)"},
            "finite numbers .* in space directions",
        ),
        (
            "a.nrrd",
            {"space:": "", "space directions": "spacings: 1,5 2,5 1", "space origin": ""},
            "in spacings, 3 together, got '1,5 2,5 1'",
        ),
        (
            "a.nrrd",
            {"space:": "", "space directions": "spacings: nan 1 1", "space origin": ""},
            "finite numbers .* in spacings",
        ),
    ],
)
@pytest.mark.parametrize("read", [read_image, lambda path: read_geometry([path])])
def test_wrong_numbers_are_refused(tmp_path, name, changes, words, read):
    write_with(tmp_path / name, changes)
    with pytest.raises(InputError, match=rf"{name}: expected .*{words}"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "changes", "unit"),
    [
        ("a.mha", {"NDims": "NDims = 3\nDistanceUnits = um"}, "um"),
        ("a.nrrd", {"kinds": 'kinds: domain domain domain\nspace units: "um" "um" "um"'}, "um"),
        (
            "a.nrrd",
            {"space:": "", "space directions": 'spacings: 1 1 1\nunits: "cm" "cm" "cm"', "space origin": ""},
            "cm",
        ),
    ],
)
@pytest.mark.parametrize("read", [read_image, lambda path: read_geometry([path])])
def test_other_units_get_a_warning(tmp_path, name, changes, unit, read):
    write_with(tmp_path / name, changes)
    assert read(tmp_path / name).warnings == (
        f"{tmp_path / name}: expected millimetres as the unit of positions, got {unit}. The numbers of the header are "
        "used as millimetres.",
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a.mha", {"NDims": "NDims = 3\nDistanceUnits = mm"}),
        ("a.mha", {"ElementSpacing": "ElementSize = 0.75 0.5 3"}),
        ("a.nrrd", {"kinds": 'kinds: domain domain domain\nspace units: "mm" "mm" "mm"'}),
        ("a.nrrd", {"kinds": "KINDS: space space space"}),
    ],
)
def test_millimetres_are_read_without_a_warning(tmp_path, name, changes):
    write_with(tmp_path / name, changes)
    image = read_image(tmp_path / name)
    assert image.warnings == ()
    assert image.spacing == (3, 0.5, 0.75)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a.mha", {"ElementSpacing": ""}),
        ("a.nrrd", {"space:": "", "space directions": "", "space origin": ""}),
    ],
)
@pytest.mark.parametrize("read", [read_image, lambda path: read_geometry([path])])
def test_a_missing_spacing_gets_a_warning(tmp_path, name, changes, read):
    write_with(tmp_path / name, changes)
    image = read(tmp_path / name)
    assert image.spacing == (1, 1, 1)
    assert image.warnings == (
        f"{tmp_path / name}: expected a spacing in the header, got none. Each voxel counts as 1 mm.",
    )


def test_axes_without_a_position_may_have_no_number(tmp_path):
    """The axis of channels has the spacing NaN, or the direction `none`."""
    vectors = np.arange(252, dtype=np.int16).reshape(3, 6, 7, 2)
    header = b"NRRD0004\ntype: short\ndimension: 4\nencoding: raw\nendian: little\nsizes: 2 7 6 3\n"
    kinds = b"kinds: vector domain domain domain\n"
    for fields in (
        b"spacings: nan 0.75 0.5 3\n",
        b"space: LPS\nspace directions: none (0.75,0,0) (0,0.5,0) (0,0,3)\nspace origin: (1,2,3)\n",
    ):
        (tmp_path / "a.nrrd").write_bytes(header + kinds + fields + b"\n" + vectors.tobytes())
        image = read_image(tmp_path / "a.nrrd")
        assert image.spacing == (3, 0.5, 0.75)
        assert image.warnings == ()
        np.testing.assert_array_equal(image.array, np.moveaxis(vectors, -1, 0))
