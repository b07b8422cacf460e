"""Pictures have the format of their ending, one frame, and stored values whatever their significant bits."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_label_map

FORMATS = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG"}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("content", ["PNG", "BMP", "JPEG", "GIF", "TIFF"])
def test_another_format_than_the_ending_is_refused(tmp_path, ending, content, rng):
    array = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    path = tmp_path / f"a{ending}"
    PIL.Image.fromarray(array).save(path, format=content)
    if FORMATS[ending] == content:
        assert read_image(path).shape == (20, 30)
        return
    for read in (read_image, count_channels, *((read_label_map,) if ending != ".jpg" else ())):
        with pytest.raises(InputError, match=rf"a{ending}: expected {FORMATS[ending]} data by its ending"):
            read(path)


@pytest.mark.parametrize("default_image", [False, True])
def test_animations_are_refused(tmp_path, rng, default_image):
    frames = [PIL.Image.fromarray(rng.integers(0, 9, (8, 9)).astype(np.uint8)) for _ in range(4)]
    options = {"append_images": frames[1:], "default_image": default_image}
    frames[0].save(tmp_path / "a.png", save_all=True, **options)
    for read in (read_image, read_label_map, count_channels):
        with pytest.raises(InputError, match=r"a\.png: expected one picture, got an animation of \d frames"):
            read(tmp_path / "a.png")


def test_the_first_picture_of_a_jpeg_file_is_read(tmp_path, rng):
    """Cameras add previews and other views."""
    first, second = (PIL.Image.fromarray(rng.integers(0, 256, (16, 24)).astype(np.uint8)) for _ in range(2))
    first.save(tmp_path / "one.jpg", quality=95)
    first.save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    np.testing.assert_array_equal(
        read_image(tmp_path / "two.jpg").array, read_image(tmp_path / "one.jpg").array
    )


def write_png(path, array, *, colour_type, chunk=b""):
    """Write a PNG picture of 16 bits with a chunk before its pixels."""

    def packed(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + packed(b"IHDR", header)
        + (packed(b"sBIT", chunk) if chunk else b"")
        + packed(b"IDAT", zlib.compress(rows))
        + packed(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [0, 8, 10, 12, 16])
@pytest.mark.parametrize(("colour_type", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_significant_bits_do_not_change_values(tmp_path, rng, bits, colour_type, samples):
    array = rng.integers(0, 65536, (5, 6, samples)).astype(np.uint16)
    if samples in (2, 4):
        array[..., -1] = 65535
    write_png(
        tmp_path / "a.png", array, colour_type=colour_type, chunk=bytes([bits] * samples) if bits else b""
    )
    expected = np.moveaxis(array[..., : 3 if samples > 2 else 1], -1, 0)
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array, expected)
    assert count_channels(tmp_path / "a.png") == len(expected)


def test_a_damaged_picture_with_significant_bits_is_named(tmp_path, rng):
    array = rng.integers(0, 65536, (50, 60, 3)).astype(np.uint16)
    write_png(tmp_path / "a.png", array, colour_type=2, chunk=b"\x0c\x0c\x0c")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"^{tmp_path / 'a.png'}: "):
        read_image(tmp_path / "a.png")
