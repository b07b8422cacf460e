"""Voxel sizes in the metadata of ImageJ and OME.

They are not used: the spacing of a TIFF file comes from the JSON file beside it, as in nnU-Net. A stack with a voxel
size but without that file gets a warning.
"""

from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    import tifffile

_MILLIMETRES = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(
        ("um", "\u00b5m", "\u03bcm", "\\u00b5m", "\\u00B5m", "micron", "microns", "micrometer"), 1e-3
    ),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
}
"""Unit to millimetres."""
_X_RESOLUTION, _Y_RESOLUTION = 282, 283
"""Tags of the number of pixels per unit."""


def voxel_size(file: "tifffile.TiffFile") -> tuple[float, float, float] | None:
    """Return the voxel size in the metadata of ImageJ or OME.

    Args:
        file: An open TIFF file.

    Returns:
        Millimetres along z, y, x. `None`: the file states none, or in an unknown unit.
    """
    try:
        size = _size_of_imagej(file) if file.is_imagej else _size_of_ome(file) if file.is_ome else None
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, ElementTree.ParseError):
        return None  # damaged metadata state nothing
    return size if size is not None and all(0 < value < 1e6 for value in size) else None


def _size_of_imagej(file: "tifffile.TiffFile") -> tuple[float, float, float] | None:
    """Return the voxel size of ImageJ.

    It consists of the spacing of slices, and of pixels per unit.
    """
    metadata = file.imagej_metadata or {}
    factor = _MILLIMETRES.get(str(metadata.get("unit", "")).strip().lower())
    if factor is None or "spacing" not in metadata:
        return None
    sizes = [metadata["spacing"]]
    for tag in (_Y_RESOLUTION, _X_RESOLUTION):
        pixels, units = file.pages.first.tags[tag].value
        sizes.append(units / pixels)
    z, y, x = (abs(float(size)) * factor for size in sizes)
    return z, y, x


def _size_of_ome(file: "tifffile.TiffFile") -> tuple[float, float, float] | None:
    """Return the voxel size of the first image of an OME-TIFF file.

    The default unit is the micrometre.
    """
    root = ElementTree.fromstring(file.ome_metadata or "<OME/>")
    pixels = next((each for each in root.iter() if each.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None or any(f"PhysicalSize{axis}" not in pixels.attrib for axis in "ZYX"):
        return None
    z, y, x = (
        float(pixels.attrib[f"PhysicalSize{axis}"])
        * _MILLIMETRES[pixels.attrib.get(f"PhysicalSize{axis}Unit", "um").lower()]
        for axis in "ZYX"
    )
    return z, y, x
