"""Uploads: their bytes go to files with names of our own.

Names and paths that a client sends are not used. The format of a file is recognized by its first bytes.
"""

import asyncio
import shutil
import time
import zipfile
from collections.abc import AsyncGenerator
from math import prod
from pathlib import Path

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from scanseg.errors import InputError
from scanseg.imaging import read_geometry
from scanseg.serving.limits import MOST_ZIP_FILES, Limits

_HEAD_BYTES = 348
_MOST_CHANNELS = 16
_PIECE_BYTES = 1 << 20
_MAGIC = {
    b"\x1f\x8b": ".nii.gz",
    b"\x89PNG\r\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"PK\x03\x04": ".zip",
}
"""Ending of a file by its first bytes."""
_EXPECTED = "the content of a NIfTI (.nii, .nii.gz), PNG or JPEG file, or a zip file of a DICOM series"
_ZIP_ENTRY = b"PK\x01\x02"


class UploadError(MultiPartException):
    """An upload is refused.

    Args:
        message: The message.
        status: Status of the response.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
        """Status of the response."""


class DisconnectError(MultiPartException):
    """The client closed its connection during the upload."""


async def receive_files(request: Request, folder: Path, limits: Limits) -> list[Path]:
    """Write the body of a request to files.

    Args:
        request: Request with the content of one file, or a form (`multipart/form-data`) with one file for each channel.
        folder: Existing folder for the files.
        limits: Largest size and longest time.

    Returns:
        The files in the order of the channels, with the endings of their formats.

    Raises:
        UploadError: The upload is too large, too slow, empty, malformed or of an unknown format.
        DisconnectError: The client closed its connection.
    """
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/")
    size = request.headers.get("content-length", "0")
    if size.isdigit() and int(size) > limits.upload_bytes:
        raise _too_large(limits)
    stream = _limited(request, limits)
    received = await _receive_form(request, stream, folder) if is_form else await _receive_raw(stream, folder)
    return [path.rename(path.with_name(path.name + _ending_of(path))) for path in received]


async def drain(request: Request, *, seconds: float) -> None:
    """Read and discard the body of a refused request.

    Otherwise a client that still sends may not read the response.

    Args:
        request: The request.
        seconds: Longest time.
    """
    deadline = time.monotonic() + seconds
    while not _is_read(request) and (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(request.receive(), left)
        except TimeoutError:
            return
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request within the limits."""
    deadline, num_bytes = time.monotonic() + limits.upload_seconds, 0
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise UploadError(
                f"upload: expected at most {limits.upload_seconds:g} s, got more. Send it over a faster connection.",
                status=408,
            ) from None
        request.state.is_read = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise DisconnectError("the client disconnected")
        chunk = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes > limits.upload_bytes:
            raise _too_large(limits)
        if chunk:
            yield chunk
        if request.state.is_read:
            return


def _is_read(request: Request) -> bool:
    """Return whether the whole body has been received."""
    return getattr(request.state, "is_read", False)


def _too_large(limits: Limits) -> UploadError:
    """Return the error of an upload that is too large."""
    return UploadError(
        f"upload: expected at most {limits.upload_bytes} bytes, got more. Compress or crop the image.",
        status=413,
    )


async def _receive_raw(stream: AsyncGenerator[bytes, None], folder: Path) -> list[Path]:
    """Write a body to one file."""
    path = folder / "image"
    with path.open("wb") as file:
        async for chunk in stream:
            file.write(chunk)
    return [path]


async def _receive_form(request: Request, stream: AsyncGenerator[bytes, None], folder: Path) -> list[Path]:
    """Write the files of a form."""
    parser = MultiPartParser(request.headers, stream, max_files=_MOST_CHANNELS, max_fields=_MOST_CHANNELS)
    try:
        form = await parser.parse()
    except (UploadError, DisconnectError):
        raise
    except (MultiPartException, FormParserError, UnicodeError, ValueError) as error:
        raise UploadError(
            f"upload: expected a form of type multipart/form-data, got a malformed one ({error}). Send the file as the "
            "body instead.",
            status=400,
        ) from error
    async with _closing(form.multi_items()) as files:
        if not files:
            raise UploadError(
                "upload: expected a file in the form, got none. Add the field image.", status=400
            )
        paths = [folder / f"image-{number}" for number in range(len(files))]
        for path, file in zip(paths, files, strict=True):
            await asyncio.to_thread(_copy, file, path)
    return paths


class _closing:  # noqa: N801 - a context, as contextlib.closing
    """Context that closes the files of a form."""

    def __init__(self, items: "list[tuple[str, UploadFile | str]]") -> None:
        self._files = [value for _, value in items if isinstance(value, UploadFile)]

    async def __aenter__(self) -> list[UploadFile]:
        return self._files

    async def __aexit__(self, *error: object) -> None:
        for file in self._files:
            await file.close()


def _copy(file: UploadFile, path: Path) -> None:
    """Copy a file of a form."""
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, _PIECE_BYTES)


def _ending_of(path: Path) -> str:
    """Return the ending of a file by its content.

    Raises:
        UploadError: The file is empty or of an unknown format.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise UploadError(
            f"upload: expected {_EXPECTED}, got no bytes. Send the file as the body.", status=400
        )
    ending = next((ending for magic, ending in _MAGIC.items() if head.startswith(magic)), None)
    if ending is None and head[344:347] == b"n+1":
        ending = ".nii"
    if ending is None:
        advice = "Zip the files of the series." if head[128:132] == b"DICM" else "Convert the image to NIfTI."
        raise UploadError(f"upload: expected {_EXPECTED}, got another format. {advice}", status=415)
    return ending


def check_sizes(files: list[Path], limits: Limits) -> None:
    """Check the size of an image before its voxels are read.

    Args:
        files: Files of the channels.
        limits: Most voxels, and most bytes of a zip file after decompression.

    Raises:
        InputError: The image is too large, or a header cannot be read.
    """
    for path in files:
        if path.suffix == ".zip":
            _check_zip(path, limits)
    pictures = [path for path in files if path.suffix in (".png", ".jpg")]
    if pictures and len(pictures) < len(files):
        raise InputError("image: expected channels of one format, got several. Send files of one format.")
    if pictures:
        num_voxels = sum(prod(_picture_size(path)) for path in pictures)
    else:
        image = read_geometry(files)
        num_voxels = 0 if image is None else prod(image.array.shape)
    if num_voxels > limits.voxels:
        raise InputError(
            f"image: expected at most {limits.voxels} voxels, got {num_voxels}. Crop it, or start the server with a "
            "larger --max-voxels."
        )


def _picture_size(path: Path) -> tuple[int, int]:
    """Return the size of a picture from its header.

    Raises:
        InputError: The header cannot be read, or the picture is enormous.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path.name}: damaged, or no picture ({error}). Save it again.") from error
    except Image.DecompressionBombWarning as error:  # an error if the program makes it one
        raise InputError(f"{path.name}: too large ({error}). Crop it.") from error


def _check_zip(path: Path, limits: Limits) -> None:
    """Check number and size of the files of a zip file.

    Its directory is read only if it has few entries.
    """
    num_files, tail = 0, b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            num_files += (tail + piece).count(_ZIP_ENTRY)
            tail = piece[-(len(_ZIP_ENTRY) - 1) :]
    if num_files > MOST_ZIP_FILES:
        raise InputError(
            f"{path.name}: expected at most {MOST_ZIP_FILES} files, got {num_files}. Send one series."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path.name}: damaged or truncated ({error}). Send it again.") from error
    if num_bytes > limits.unpacked_bytes:
        raise InputError(
            f"{path.name}: expected at most {limits.unpacked_bytes} bytes after decompression, got {num_bytes}. Send "
            "one series, or start the server with a larger --max-voxels."
        )
