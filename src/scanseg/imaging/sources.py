"""Files that decide the value of an image."""

from pathlib import Path

from scanseg.imaging.companion import companion_path
from scanseg.imaging.dicom.recognition import split_series_path
from scanseg.imaging.dicom.series import find_series
from scanseg.imaging.formats import DECODERS
from scanseg.imaging.itk_voxels import find_voxel_files


def files_of(path: Path, *, is_label_map: bool = False) -> tuple[Path, ...]:
    """Return the files that decide the value of an image.

    They are the file itself, the files of the voxels of a header (`.mhd`, `.nhdr`), and the JSON file with the spacing
    of a TIFF file. Of a DICOM series they are the files of its slices, or the zip file.

    Args:
        path: File of the image, or path of a series.
        is_label_map: The file is a label map or an instance map, see `companion_path`.

    Returns:
        The file, and the others that exist.

    Raises:
        InputError: A series cannot be read.
    """
    if split_series_path(path) is not None:
        return find_series(path).files
    decoder = next(
        (decoder for ending, decoder in DECODERS.items() if path.name.lower().endswith(ending)), None
    )
    if decoder == "itk":
        return (path, *(file for file in find_voxel_files(path) if file != path))
    companion = companion_path(path, is_label_map=is_label_map)
    return (path, companion) if decoder == "tiff" and companion.is_file() else (path,)
