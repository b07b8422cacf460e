"""Postprocessing: removal of all but the largest connected component.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net). Voxels of a component touch by faces, edges or
corners.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from scanseg.specs import PostprocessingSpec

NOTHING = PostprocessingSpec()
"""Postprocessing that changes nothing."""


def postprocess(
    label_map: UInt8[np.ndarray, "*spatial"],
    spec: PostprocessingSpec,
    *,
    labels: Mapping[str, Sequence[int]],
) -> UInt8[np.ndarray, "*spatial"]:
    """Return a label map without smaller components.

    Removed voxels become background.

    Args:
        label_map: The label map. It is not changed.
        spec: Labels of which only the largest component stays.
        labels: Label values by the name of each label or region.
    """
    if spec.largest_foreground:
        label_map = _keep_largest(label_map, label_map > 0)
    for name in spec.largest_component:
        label_map = _keep_largest(label_map, np.isin(label_map, labels[name]))
    return label_map


def _keep_largest(
    label_map: UInt8[np.ndarray, "*spatial"], mask: Bool[np.ndarray, "*spatial"]
) -> UInt8[np.ndarray, "*spatial"]:
    """Clear the voxels of a mask outside its largest component.

    Of components of equal size the first one stays.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return label_map
    inside = mask[box[0]]
    components, number = ndimage.label(inside, structure=np.ones((3,) * inside.ndim, dtype=bool))
    if number == 1:
        return label_map
    largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    cleared = label_map.copy()
    cleared[box[0]][inside & (components != largest)] = 0
    return cleared
