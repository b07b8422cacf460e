"""Array files are checked before blosc2 opens them."""

from pathlib import Path

import blosc2
import numpy as np
import pytest

from scanseg.errors import InputError
from scanseg.preprocessing import open_array, read_array, write_array
from scanseg.preprocessing.compressed import read_part


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    write_array(tmp_path / "plain.b2nd", np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4))
    return tmp_path / "plain.b2nd"


def save_expression(folder: Path) -> Path:
    """Save a computation on two arrays, as blosc2 does."""
    operands = [blosc2.asarray(np.ones(3), urlpath=str(folder / f"{name}.b2nd"), mode="w") for name in "ab"]
    (operands[0] + operands[1]).save(str(folder / "lazy.b2nd"))
    return folder / "lazy.b2nd"


def save_function(folder: Path) -> Path:
    """Save a Python function, which blosc2 would run when the array is read."""

    def body(inputs: tuple[np.ndarray, ...], output: np.ndarray, offset: tuple[int, ...]) -> None:
        Path("ran").touch()

    operand = blosc2.asarray(np.ones(3), urlpath=str(folder / "operand.b2nd"), mode="w")
    blosc2.lazyudf(body, (operand,), np.float64).save(urlpath=str(folder / "udf.b2nd"))
    return folder / "udf.b2nd"


def save_with_metalayer(folder: Path, name: str) -> Path:
    """Save an array with a further metalayer, as older versions of blosc2 marked computations."""
    blosc2.asarray(np.ones(3), urlpath=str(folder / "meta.b2nd"), mode="w", meta={name: {"expression": "1"}})
    return folder / "meta.b2nd"


def save_chunks(folder: Path) -> Path:
    """Save bytes without a shape."""
    blosc2.SChunk(data=b"x" * 1000, urlpath=str(folder / "chunks.b2nd"), mode="w", contiguous=True)
    return folder / "chunks.b2nd"


@pytest.mark.parametrize("save", [save_expression, save_function, save_chunks])
@pytest.mark.parametrize("read", [open_array, read_array])
def test_files_that_hold_no_plain_array_are_refused_before_they_are_opened(tmp_path, monkeypatch, save, read):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path)
    monkeypatch.setattr(blosc2, "open", lambda *arguments, **options: pytest.fail("opened"))
    with pytest.raises(InputError, match=rf"{path.name}: expected a plain array, got a computation"):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["LazyArray", "proxy-source", "b2o", "listarray", "other"])
def test_further_metalayers_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="expected a plain array"):
        open_array(save_with_metalayer(tmp_path, name))


def test_blosc2_is_asked_for_safe_deserialization(plain, monkeypatch):
    options = []
    real = blosc2.open
    monkeypatch.setattr(blosc2, "open", lambda path, **given: [options.append(given), real(path, **given)][1])
    read_array(plain)
    assert options == [{"mode": "r", "deserialize": "safe"}]


@pytest.mark.parametrize("length", [0, 1, 10, 90, 95, 100, 180])
def test_files_that_are_cut_short_are_damaged(plain, length):
    plain.write_bytes(plain.read_bytes()[:length])
    with pytest.raises(InputError, match=r"plain\.b2nd: damaged\. Delete the file"):
        read_array(plain)


def test_another_shape_is_refused(plain):
    assert read_array(plain, shape=(1, 2, 3, 4)).shape == (1, 2, 3, 4)
    for shape in ((2, 3, 4), (1, 2, 3, 5), ()):
        with pytest.raises(InputError, match=r"plain\.b2nd: expected shape .*, got \(1, 2, 3, 4\)"):
            open_array(plain, shape=shape)


@pytest.mark.parametrize("dtype", ["U5", "S5", "M8[s]", "c16", [("a", "i4"), ("b", "f4")]])
def test_arrays_of_other_types_are_refused(tmp_path, dtype):
    blosc2.asarray(np.zeros(3, dtype), urlpath=str(tmp_path / "other.b2nd"), mode="w")
    with pytest.raises(InputError, match=r"other\.b2nd: expected an array of numbers, got"):
        open_array(tmp_path / "other.b2nd")


@pytest.mark.parametrize("shape", [(2**20, 2**20), (2**33,), (2**14, 2**14, 2**14)])
def test_an_array_that_claims_too_many_voxels_is_not_read(tmp_path, shape):
    """A file of some kilobytes can claim any shape if its voxels are all 0."""
    blosc2.zeros(shape, dtype=np.uint8, urlpath=str(tmp_path / "huge.b2nd"), mode="w")
    with pytest.raises(
        InputError, match=r"huge\.b2nd: expected sizes of at least 1 and at most 4\.3e\+09 voxels"
    ):
        read_array(tmp_path / "huge.b2nd")


def test_a_file_that_is_damaged_inside_is_named(plain):
    opened = open_array(plain)
    with pytest.raises(InputError, match=r"plain\.b2nd: damaged"):
        read_part(opened, "x", path=plain)
