"""TIFF files without all of their pages, strips or tiles are refused. tifffile fills them with zeros."""

import logging
import threading

import numpy as np
import pytest
import tifffile

from scanseg.errors import InputError
from scanseg.imaging import count_channels, read_image, read_label_map

STACK = np.random.default_rng(3).integers(1, 250, (6, 40, 30)).astype(np.uint8)
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'UUID="urn:uuid:{number}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
    'SizeX="30" SizeY="40" SizeC="1" SizeT="1" SizeZ="6">'
    '<TiffData IFD="0" FirstZ="0" PlaneCount="3"><UUID FileName="0.ome.tif">urn:uuid:0</UUID></TiffData>'
    '<TiffData IFD="0" FirstZ="3" PlaneCount="3"><UUID FileName="1.ome.tif">urn:uuid:1</UUID></TiffData>'
    "</Pixels></Image></OME>"
)


def write_pages(path, stack, *, description=None, **options):
    """Write each slice as a page with its own pixels."""
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(stack):
            text = description if number == 0 else None
            writer.write(page, contiguous=False, metadata=None, description=text, **options)


WRITERS = {
    "contiguous": lambda path: tifffile.imwrite(path, STACK, metadata=None),
    "shaped": lambda path: tifffile.imwrite(path, STACK),
    "imagej": lambda path: tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"}),
    "ome": lambda path: tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX"}),
    "pages": lambda path: write_pages(path, STACK),
    "tiles": lambda path: write_pages(path, STACK, tile=(16, 16), compression="zlib"),
    "strips": lambda path: write_pages(path, STACK, rowsperstrip=8, compression="zlib"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("read", [read_image, read_label_map])
def test_a_cut_stack_is_refused(tmp_path, kind, read):
    path = tmp_path / "a.tif"
    WRITERS[kind](path)
    np.testing.assert_array_equal(read(path).array[0], STACK)
    content = path.read_bytes()
    for part in (0.3, 0.5, 0.8, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(InputError, match=r"a\.tif: "):
            read(path)


def test_a_picture_of_several_files_needs_all_of_them(tmp_path):
    for number in (0, 1):
        part = STACK[3 * number :][:3]
        write_pages(tmp_path / f"{number}.ome.tif", part, description=OME.format(number=number))
    first, second = tmp_path / "0.ome.tif", tmp_path / "1.ome.tif"
    np.testing.assert_array_equal(read_image(first).array[0], STACK)
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"0\.ome\.tif: damaged or truncated: expected a complete TIFF file"):
        read_image(first)
    second.unlink()
    for read in (read_image, count_channels):
        with pytest.raises(InputError, match=r"0\.ome\.tif: damaged or truncated: .*(no page 3|1\.ome\.tif)"):
            read(first)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("tag", "change", "words"),
    [
        (279, lambda values: (values[0], 0, *values[2:]), "an empty strip or tile in page 0"),
        (273, lambda values: (values[0], 0, *values[2:]), "an empty strip or tile in page 0"),
        (273, lambda values: values[:3], "3 of 5 strips or tiles in page 0"),
        (279, lambda values: values[:3], "3 of 5 strips or tiles in page 0"),
    ],
)
def test_missing_strips_are_refused(tmp_path, compression, tag, change, words):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], rowsperstrip=8, metadata=None, compression=compression)
    np.testing.assert_array_equal(read_image(path).array[0], STACK[0])
    with tifffile.TiffFile(path, mode="r+") as file:
        found = file.pages[0].tags[tag]
        found.overwrite(change(tuple(found.value)))
    with pytest.raises(InputError, match=rf"a\.tif: damaged or truncated: .*{words}"):
        read_image(path)


def test_messages_of_other_threads_and_files_are_no_fault(tmp_path):
    path = tmp_path / "a.tif"
    WRITERS["shaped"](path)
    done, logger = threading.Event(), logging.getLogger("tifffile")

    def log():
        while not done.is_set():
            logger.error("invalid page offset 9")

    handlers = list(logger.handlers)
    logger.addHandler(logging.NullHandler())
    thread = threading.Thread(target=log)
    thread.start()
    try:
        for _ in range(20):
            np.testing.assert_array_equal(read_image(path).array[0], STACK)
    finally:
        done.set()
        thread.join()
        logger.handlers[:] = handlers


def test_reading_leaves_no_handler_behind(tmp_path):
    WRITERS["shaped"](tmp_path / "a.tif")
    before = list(logging.getLogger("tifffile").handlers)
    read_image(tmp_path / "a.tif")
    assert logging.getLogger("tifffile").handlers == before
