"""PNG and BMP files: bit depths, colour types, palettes, transparency, interlacing."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_instance_map, read_label_map

GREY, COLOURS, PALETTE, GREY_ALPHA, COLOURS_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, COLOURS: 3, PALETTE: 1, GREY_ALPHA: 2, COLOURS_ALPHA: 4}
BITS = {
    GREY: (1, 2, 4, 8, 16),
    COLOURS: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    COLOURS_ALPHA: (8, 16),
}
"""Bit depths of each colour type. Source: PNG specification, third edition, table 8."""
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step of rows and step of columns of each pass of Adam7."""


def write_png(path, pixels, *, bits, kind, interlaced=False, chunks=()):
    """Write a PNG file without a library.

    Args:
        path: The file.
        pixels: Samples of shape (y, x, sample).
        bits: Bits of a sample.
        kind: Colour type.
        interlaced: Store seven passes (Adam7).
        chunks: Names and contents of chunks before the pixels.
    """
    rows = []
    for y, x, step_y, step_x in PASSES if interlaced else ((0, 0, 1, 1),):
        part = pixels[y::step_y, x::step_x]
        if part.size:
            rows += [b"\0" + pack(row.ravel(), bits) for row in part]
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(rows))
    content = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in content
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def pack(row, bits):
    if bits >= 8:
        return row.astype(f">u{bits // 8}").tobytes()
    return np.packbits((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).tobytes()


def palette_of(rng, bits):
    return rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)


CASES = [(kind, bits) for kind, depths in BITS.items() for bits in depths]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.sampled_from(CASES), seed=st.integers(0, 99), interlaced=st.booleans(), gamma=st.booleans())
def test_every_kind_of_png_has_the_right_values(tmp_path, case, seed, interlaced, gamma):
    (kind, bits), rng = case, np.random.default_rng(seed)
    pixels = rng.integers(0, 2**bits, (int(rng.integers(1, 20)), int(rng.integers(1, 20)), SAMPLES[kind]))
    if kind in (GREY_ALPHA, COLOURS_ALPHA):
        pixels[..., -1] = 2**bits - 1
    chunks = [(b"gAMA", struct.pack(">I", 22000))] if gamma else []
    palette = palette_of(rng, bits)
    if kind == PALETTE:
        chunks.append((b"PLTE", palette.tobytes()))
    path = write_png(tmp_path / "a.png", pixels, bits=bits, kind=kind, interlaced=interlaced, chunks=chunks)
    image = read_image(path)
    assert count_channels(path) == image.num_channels
    found = np.moveaxis(image.array, 0, -1)
    if kind == PALETTE:
        np.testing.assert_array_equal(found, palette[pixels[..., 0]])
        np.testing.assert_array_equal(read_label_map(path).array[0], pixels[..., 0])
        np.testing.assert_array_equal(read_instance_map(path).array[0], pixels[..., 0])
        return
    colours = pixels[..., : {GREY_ALPHA: 1, COLOURS_ALPHA: 3}.get(kind, 3)]
    scale = 255 // (2**bits - 1) if bits in (2, 4) else 1
    np.testing.assert_array_equal(found, colours * scale)
    if kind in (GREY, GREY_ALPHA):
        np.testing.assert_array_equal(read_instance_map(path).array[0], colours[..., 0])
        if bits <= 8:
            np.testing.assert_array_equal(read_label_map(path).array[0], colours[..., 0])


@pytest.mark.parametrize("bits", [2, 4])
def test_label_maps_of_few_bits_are_not_scaled(tmp_path, bits):
    pixels = np.arange(2**bits).reshape(2, -1, 1)
    path = write_png(tmp_path / "a.png", pixels, bits=bits, kind=GREY)
    np.testing.assert_array_equal(read_label_map(path).array[0], pixels[..., 0])
    assert read_image(path).array.max() == 255


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [GREY_ALPHA, COLOURS_ALPHA])
def test_alpha_that_varies_is_refused(tmp_path, rng, kind, bits):
    pixels = rng.integers(0, 2**bits, (4, 5, SAMPLES[kind]))
    pixels[0, 0, -1], pixels[0, 1, -1] = 0, 7
    path = write_png(tmp_path / "a.png", pixels, bits=bits, kind=kind)
    with pytest.raises(InputError, match="the alpha channel varies from 0 to"):
        read_image(path)


def test_a_palette_with_transparent_colours(tmp_path, rng):
    indices, palette = rng.integers(0, 4, (4, 5, 1)), palette_of(rng, 2)
    indices.flat[:4] = range(4)
    for alpha, is_fine in ((bytes([255, 255]), True), (bytes([0, 255]), False), (bytes([9, 9, 9, 9]), True)):
        chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alpha)]
        path = write_png(tmp_path / "a.png", indices, bits=2, kind=PALETTE, chunks=chunks)
        np.testing.assert_array_equal(read_label_map(path).array[0], indices[..., 0])
        assert count_channels(path) == 3
        if is_fine:
            expected = np.moveaxis(palette[indices[..., 0]], -1, 0)
            np.testing.assert_array_equal(read_image(path).array, expected)
        else:
            with pytest.raises(InputError, match="the alpha channel varies from 0 to 255"):
                read_image(path)


@pytest.mark.parametrize(("kind", "bits"), [(GREY, 1), (GREY, 2), (GREY, 8), (GREY, 16), (COLOURS, 8)])
def test_a_transparent_colour_is_ignored(tmp_path, rng, kind, bits):
    pixels = rng.integers(0, 2**bits, (4, 5, SAMPLES[kind]))
    transparent = struct.pack(f">{SAMPLES[kind]}H", *(int(value) for value in pixels[0, 0]))
    chunks = [(b"tRNS", transparent)]
    path = write_png(tmp_path / "a.png", pixels, bits=bits, kind=kind, chunks=chunks)
    scale = 85 if bits == 2 else 1
    np.testing.assert_array_equal(np.moveaxis(read_image(path).array, 0, -1), pixels * scale)
    assert count_channels(path) == SAMPLES[kind]


def test_bmp_files_of_few_bits(tmp_path, rng):
    indices = rng.integers(0, 4, (4, 5), dtype=np.uint8)
    picture = PIL.Image.frombytes("P", (5, 4), indices.tobytes())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    picture.save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.bmp").array[0], indices)
    assert read_image(tmp_path / "a.bmp").num_channels == 3
    PIL.Image.fromarray(indices > 1).save(tmp_path / "b.bmp")
    np.testing.assert_array_equal(read_label_map(tmp_path / "b.bmp").array[0], indices > 1)


def test_masks_in_colours_are_refused(tmp_path, rng):
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[1:3, 1:3] = (255, 0, 0)
    PIL.Image.fromarray(mask).save(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"3 channels that differ\. Save one integer per voxel\. `scanseg data convert"
    ):
        read_label_map(tmp_path / "a.png")
