"""Label maps and DICOM Segmentations of a case on one grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanseg.errors import InputError
from scanseg.imaging import (
    Image,
    compare_geometry,
    is_segmentation_file,
    join_grids,
    place_on_grid,
    read_label_map,
    read_segmentation,
)

Segments = Mapping[str, Sequence[int]]
"""Names of segments in DICOM Segmentations, with their label values."""


def read_map(path: Path, segments: Segments | None) -> Image:
    """Read a label map or a DICOM Segmentation.

    Args:
        path: The file.
        segments: Names of segments, with their label values. `None`: unknown.

    Raises:
        InputError: The file cannot be read as a label map.
    """
    return read_segmentation(path, segments) if is_segmentation_file(path) else read_label_map(path)


def align_maps(maps: Mapping[Path, Image], *, grid: Image | None = None) -> dict[Path, Image]:
    """Place DICOM Segmentations on the grid of the other map.

    They lack slices without labels. Two of them are placed on the smallest grid that holds both.

    Args:
        maps: One or two maps by their file.
        grid: Image with another grid for all maps. `None`: no such image.

    Returns:
        The maps by their file. Maps of other voxels are unchanged.
    """
    segmentations = [path for path in maps if is_segmentation_file(path)]
    if not segmentations:
        return dict(maps)
    if grid is not None:
        return {path: place_on_grid(image, grid) for path, image in maps.items()}
    if len(maps) < 2:
        return dict(maps)
    others = [image for path, image in maps.items() if path not in segmentations]
    common = others[0] if others else join_grids(*maps.values())
    return {
        path: place_on_grid(image, common) if path in segmentations else image for path, image in maps.items()
    }


def read_maps(
    paths: Sequence[Path], *, segments: Segments | None = None, grid: Image | None = None
) -> tuple[Image, ...]:
    """Read the label maps of a case.

    Args:
        paths: Files of label maps or DICOM Segmentations, one or two.
        segments: Names of segments in DICOM Segmentations, with their label values. `None`: unknown.
        grid: Image whose grid the maps get if one of them is a DICOM Segmentation. `None`: the grid of the other map.

    Returns:
        The maps in the order of the files.

    Raises:
        InputError: A file cannot be read as a label map, or a map does not fit on the grid.
    """
    maps = align_maps({path: read_map(path, segments) for path in paths}, grid=grid)
    if grid is not None and any(map(is_segmentation_file, paths)):
        for path, image in maps.items():
            if differences := compare_geometry(image, grid):
                raise InputError(
                    f"{path}: expected the grid of the image, got another: {'; '.join(differences)}. Give the label "
                    "map of this image."
                )
    return tuple(maps[path] for path in paths)
