"""Write images, label maps, instance maps and probabilities.

Files are complete: an interrupted write leaves the old file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from scanseg.errors import InputError, reason_of
from scanseg.files import written_whole
from scanseg.imaging.companion import write_companion_spacing
from scanseg.imaging.exif import STORED_AS_DISPLAYED
from scanseg.imaging.formats import DECODERS, DETACHED_ENDINGS, LOSSY_ENDINGS, MEDICAL_DECODERS, file_ending
from scanseg.imaging.header import PictureHeader
from scanseg.imaging.image import Image
from scanseg.imaging.itk import write_itk
from scanseg.imaging.nifti import write_nifti
from scanseg.imaging.palette import colour_instances, make_palette
from scanseg.imaging.pictures import write_pillow
from scanseg.imaging.raster import write_tiff
from scanseg.imaging.reading import HIGHEST_INSTANCE, HIGHEST_LABEL
from scanseg.messages import counted

HIGHEST_UINT16 = 65535
"""Highest value of 16-bit files."""


def write_label_map(path: Path, label_map: Integer[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write a label map as uint8 on the grid of an image.

    The file appears under its name when it is complete. An existing file is replaced. A spacing other than 1 goes
    into a JSON file beside a TIFF file, and an existing JSON file gets any spacing. PNG and BMP files hold no spacing.
    For a picture with an orientation tag, PNG and TIFF files hold the pixels in the order of the picture, and its tag.

    Args:
        path: The file. Its ending selects the format.
        label_map: Label values from 0 to 255 of shape (z, y, x) or (y, x).
        like: Image with the shape, spacing, origin and direction of the label map.

    Raises:
        InputError: The format cannot hold a label map without loss, the shape differs from the image's, a value is
            out of range, or the file cannot be written.
    """
    _check_integers(path, label_map, like, highest=HIGHEST_LABEL, kind="label")
    _write_integers(path, label_map.astype(np.uint8, copy=False), like)


def write_colours(
    path: Path,
    label_map: UInt8[np.ndarray, "y x"],
    *,
    like: Image,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write a picture of a label map, with one colour per label.

    The file is a PNG with a palette: its stored values are the label values. Many readers return colours instead
    (SimpleITK, imageio, OpenCV, matplotlib), so it is for viewing.

    Args:
        path: The file, ending in `.png`.
        label_map: Label values of shape (y, x).
        like: Image with the shape of the label map. Its orientation tag is kept.
        colours: Red, green and blue of label values. Other values have the colours of a fixed palette.

    Raises:
        InputError: The shape differs from the image's, or the file cannot be written.
    """
    _check_integers(path, label_map, like, highest=HIGHEST_LABEL, kind="label")
    _write(
        path,
        lambda target: write_pillow(
            target, label_map, palette=make_palette(colours), orientation=_orientation_of(like)
        ),
    )


def write_instance_colours(path: Path, instances: Integer[np.ndarray, "y x"], *, like: Image) -> None:
    """Write a picture of an instance map, with different colours for neighbours.

    Instances that do not touch may share a colour. The file is a PNG with a palette, for viewing.

    Args:
        path: The file, ending in `.png`. Its folder is created if it is missing.
        instances: Instance numbers, 0 elsewhere, of shape (y, x).
        like: Image with the shape of the instance map. Its orientation tag is kept.

    Raises:
        InputError: The shape differs from the image's, or the file cannot be written.
    """
    _check_integers(path, instances, like, highest=HIGHEST_INSTANCE, kind="instance")
    path.parent.mkdir(exist_ok=True)
    write_colours(path, colour_instances(instances), like=like)


def write_instance_map(path: Path, instances: Integer[np.ndarray, "*spatial"], *, like: Image) -> None:
    """Write an instance map on the grid of an image.

    The file holds uint16, or int32 if a number exceeds 65535.

    Args:
        path: The file. Its ending selects the format.
        instances: Instance numbers, 0 elsewhere, of shape (z, y, x) or (y, x).
        like: Image with the shape, spacing, origin and direction of the map.

    Raises:
        InputError: As for `write_label_map`. Numbers go up to 65535 in PNG and BMP files, else up to 2^31 - 1.
    """
    is_picture = DECODERS[file_ending(path)] == "pillow"
    _check_integers(
        path, instances, like, highest=HIGHEST_UINT16 if is_picture else HIGHEST_INSTANCE, kind="instance"
    )
    dtype = np.int32 if instances.max(initial=0) > HIGHEST_UINT16 else np.uint16
    _write_integers(path, instances.astype(dtype, copy=False), like)


def write_image(path: Path, image: Image) -> None:
    """Write a medical image of one channel, or an 8-bit PNG picture.

    The file appears under its name when it is complete. An existing file is replaced.

    Args:
        path: The file, ending in `.nii.gz`, `.nii`, `.nrrd` or `.mha`, or in `.png`.
        image: The image. It has one channel. For `.png` it has one or three channels of uint8 and two axes.

    Raises:
        InputError: The ending is another one, the format cannot hold the image, or the file cannot be written.
    """
    ending = file_ending(path)
    if ending == ".png":
        if image.array.dtype != np.uint8 or image.num_channels not in (1, 3) or image.num_axes != 2:
            raise InputError(
                f"{path}: expected 1 or 3 channels of uint8 and 2 axes, got "
                f"{counted(image.num_channels, 'channel')} of {image.array.dtype} and {image.num_axes} axes."
            )
        pixels = image.array[0] if image.num_channels == 1 else np.moveaxis(image.array, 0, -1)
        _write(
            path,
            lambda target: write_pillow(
                target, np.ascontiguousarray(pixels), orientation=_orientation_of(image)
            ),
        )
        return
    if DECODERS[ending] not in MEDICAL_DECODERS or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: images are not written as {ending}. Use .nii.gz, .nrrd, .mha or .png.")
    if image.num_channels != 1:
        raise InputError(
            f"{path}: expected an image of 1 channel, got {image.num_channels}. Write one file per channel."
        )
    _write_medical(path, image.array[0], image)


def write_probabilities(
    path: Path, probabilities: Float[np.ndarray, "output *spatial"], *, like: Image
) -> None:
    """Write probabilities as float16 into a compressed `.npz` file.

    The array in the file is named `probabilities`. The file appears under its name when it is complete. An existing
    file is replaced.

    Args:
        path: The file, ending in `.npz`.
        probabilities: Values in [0, 1] of shape (output, z, y, x) or (output, y, x), on the source grid.
        like: Image with the spatial shape of the probabilities.

    Raises:
        InputError: The ending is not `.npz`, the shape differs from the image's, or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise InputError(f"{path}: expected the ending .npz for probabilities. Change the ending.")
    if probabilities.shape[1:] != like.shape:
        raise InputError(
            f"{path}: expected probabilities of shape {like.shape} as the image, got {probabilities.shape[1:]}."
        )
    values = probabilities.astype(np.float16, copy=False)
    _write(path, lambda target: np.savez_compressed(target, probabilities=values))


def _check_integers(path: Path, numbers: np.ndarray, like: Image, *, highest: int, kind: str) -> None:
    """Check shape, type and range of a label map or instance map.

    Raises:
        InputError: The shape differs from the image's, the type is not integer, or a value is out of range.
    """
    if numbers.shape != like.shape:
        raise InputError(
            f"{path}: expected the {kind} map in the shape {like.shape} of the image, got {numbers.shape}."
        )
    if numbers.dtype.kind not in "ui":
        raise InputError(f"{path}: expected integers in the {kind} map, got {numbers.dtype}.")
    if numbers.size and (numbers.min() < 0 or numbers.max() > highest):
        raise InputError(
            f"{path}: expected {kind} values from 0 to {highest}, got values from {numbers.min()} to {numbers.max()}."
        )


def _write_integers(path: Path, numbers: np.ndarray, like: Image) -> None:
    """Write a label map or instance map in the ending's format."""
    ending = file_ending(path)
    decoder = DECODERS[ending]
    if ending in LOSSY_ENDINGS or ending in DETACHED_ENDINGS:
        raise InputError(f"{path}: label maps are not written as {ending}. Use .nii.gz, .nrrd, .mha or .png.")
    if decoder in MEDICAL_DECODERS:
        _write_medical(path, numbers, like)
    elif decoder == "tiff":
        _check_folder(path)
        write_companion_spacing(path, like.spacing)
        _write(path, lambda target: write_tiff(target, numbers, orientation=_orientation_of(like)))
    elif numbers.ndim == 2:
        _write(path, lambda target: write_pillow(target, numbers, orientation=_orientation_of(like)))
    else:
        raise InputError(f"{path}: {ending} cannot hold 3 axes. Use .nii.gz, .nrrd, .mha or .tif.")


def _orientation_of(like: Image) -> int:
    """Return the orientation tag of an image."""
    return like.header.orientation if isinstance(like.header, PictureHeader) else STORED_AS_DISPLAYED


def _write_medical(path: Path, array: np.ndarray, like: Image) -> None:
    """Write an array in a format that holds a position in space."""
    write = write_nifti if DECODERS[file_ending(path)] == "nifti" else write_itk
    _write(path, lambda target: write(target, array, like))


def _check_folder(path: Path) -> None:
    """Check that the folder of a file exists."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected a folder at {path.parent}, got none. Create it first.")


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name with the same ending, then rename.

    Raises:
        InputError: The folder is missing, or the file cannot be written.
    """
    _check_folder(path)
    try:
        with written_whole(path) as temporary:
            write(temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason_of(error)}).") from error
