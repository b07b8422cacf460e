"""Images in files and in memory. The only room that knows axes other than z, y, x.

The image libraries are imported when a file is read or written, not before.
"""

from scanseg.imaging.image import Image, compare_geometry
from scanseg.imaging.reading import count_channels, read_image, read_instance_map, read_label_map
from scanseg.imaging.resampling import resample_image, resample_label_map
from scanseg.imaging.writing import write_image, write_instance_map, write_label_map, write_probabilities

__all__ = [
    "Image",
    "compare_geometry",
    "count_channels",
    "read_image",
    "read_instance_map",
    "read_label_map",
    "resample_image",
    "resample_label_map",
    "write_image",
    "write_instance_map",
    "write_label_map",
    "write_probabilities",
]
