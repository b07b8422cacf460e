"""Pictures of cases in a report: three planes with prediction and reference."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from scanseg.figures import PLANE_NAMES, Look, Scene, choose_slice, make_scene, render_plane
from scanseg.imaging import Image
from scanseg.reports.charts import embed_pixels
from scanseg.reports.page import CasePictures, Chart

_LOOK = Look(num_pixels=460)


def draw_case(
    image: Image,
    label_map: UInt8[np.ndarray, "*spatial"],
    reference: UInt8[np.ndarray, "*spatial"] | None,
    *,
    labels: Mapping[str, tuple[int, ...]],
    colours: Mapping[int, tuple[int, int, int]],
    title: str,
    facts: str,
) -> CasePictures:
    """Draw a volume in three planes, or a picture.

    Slices are those with the most errors, or with the largest part of all labels.

    Args:
        image: The image.
        label_map: Predicted values on its grid.
        reference: Reference values. `None`: no reference.
        labels: Values of each label, by name.
        colours: Red, green and blue of label values with their own colour.
        title: Heading.
        facts: Text below the heading.
    """
    scene = make_scene(image, label_map, reference, labels=labels, colours=colours)
    return CasePictures(title, facts, tuple(_draw_scene(scene, title)))


def _draw_scene(scene: Scene, title: str) -> list[Chart]:
    if not scene.is_volume:
        plain = render_plane(scene, look=_LOOK, overlay=False)
        return [
            embed_pixels(plain, alternative=f"{title}: image", caption="image"),
            embed_pixels(render_plane(scene, look=_LOOK), alternative=f"{title}: labels", caption="labels"),
        ]
    errors = None
    if scene.reference is not None and scene.label_map is not None:
        errors = scene.label_map != scene.reference
    charts = []
    for axis, name in enumerate(PLANE_NAMES):
        index = choose_slice(scene, axis, focus=errors)
        pixels = render_plane(scene, axis, index, look=_LOOK)
        caption = f"{name}, slice {index + 1} of {scene.shape[axis]}"
        charts.append(embed_pixels(pixels, alternative=f"{title}: {name} plane", caption=caption))
    return charts
