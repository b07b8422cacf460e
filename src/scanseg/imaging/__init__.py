"""Images in files and in memory.

Only this package handles other axis orders than z, y, x. The image libraries are imported when a file is read or
written.
"""

from scanseg.imaging.axes import SLICE_SPACING_MM, as_volume
from scanseg.imaging.companion import companion_path
from scanseg.imaging.cropping import find_nonzero_box, find_nonzero_mask
from scanseg.imaging.dicom.container import leads_outside
from scanseg.imaging.dicom.geometry import stack_slices
from scanseg.imaging.dicom.recognition import (
    can_read_dicom,
    dicom_advice,
    find_dicom,
    has_dicom_content,
    split_series_path,
)
from scanseg.imaging.dicom.segmentation import (
    SegmentationSource,
    make_segments,
    require_writer,
    write_segmentation,
)
from scanseg.imaging.dicom.segmentation_reading import (
    is_segmentation_file,
    join_grids,
    place_on_grid,
    read_segmentation,
)
from scanseg.imaging.dicom.series import Series, SeriesList, choose_series, find_series, list_series
from scanseg.imaging.dicom.summary import SeriesSummary, SourceSummary, summarize_series
from scanseg.imaging.formats import (
    DECODERS,
    DETACHED_ENDINGS,
    LOSSY_ENDINGS,
    MEDICAL_DECODERS,
    decoder_of,
    file_ending,
)
from scanseg.imaging.header import PictureHeader
from scanseg.imaging.image import Image, compare_geometry
from scanseg.imaging.in_memory import BinaryFile, image_from_memory, library_of
from scanseg.imaging.orientation import (
    axis_codes,
    direction_of,
    find_reorientation,
    left_right_axis,
)
from scanseg.imaging.palette import LABEL_COLOURS, make_palette, palette_colours
from scanseg.imaging.pictures import read_palette
from scanseg.imaging.reading import (
    count_channels,
    read_geometry,
    read_image,
    read_instance_map,
    read_label_map,
    read_stored_values,
)
from scanseg.imaging.resampling import resample_image, resample_label_map
from scanseg.imaging.sources import files_of
from scanseg.imaging.writing import (
    write_colours,
    write_image,
    write_instance_colours,
    write_instance_map,
    write_label_map,
    write_probabilities,
)

__all__ = [
    "DECODERS",
    "DETACHED_ENDINGS",
    "LABEL_COLOURS",
    "LOSSY_ENDINGS",
    "MEDICAL_DECODERS",
    "SLICE_SPACING_MM",
    "BinaryFile",
    "Image",
    "PictureHeader",
    "SegmentationSource",
    "Series",
    "SeriesList",
    "SeriesSummary",
    "SourceSummary",
    "as_volume",
    "axis_codes",
    "can_read_dicom",
    "choose_series",
    "companion_path",
    "compare_geometry",
    "count_channels",
    "decoder_of",
    "dicom_advice",
    "direction_of",
    "file_ending",
    "files_of",
    "find_dicom",
    "find_nonzero_box",
    "find_nonzero_mask",
    "find_reorientation",
    "find_series",
    "has_dicom_content",
    "image_from_memory",
    "is_segmentation_file",
    "join_grids",
    "leads_outside",
    "left_right_axis",
    "library_of",
    "list_series",
    "make_palette",
    "make_segments",
    "palette_colours",
    "place_on_grid",
    "read_geometry",
    "read_image",
    "read_instance_map",
    "read_label_map",
    "read_palette",
    "read_segmentation",
    "read_stored_values",
    "require_writer",
    "resample_image",
    "resample_label_map",
    "split_series_path",
    "stack_slices",
    "summarize_series",
    "write_colours",
    "write_image",
    "write_instance_colours",
    "write_instance_map",
    "write_label_map",
    "write_probabilities",
    "write_segmentation",
]
