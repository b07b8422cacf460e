"""Slices with the contours of their labels."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from scanseg.figures import draw_slice
from scanseg.imaging import LABEL_COLOURS


@pytest.fixture
def axes():
    figure = Figure(figsize=(4, 4))
    FigureCanvasAgg(figure)
    return figure.subplots()


def test_each_label_has_a_contour_of_its_colour_in_millimetres(axes):
    label_map = np.zeros((20, 30), dtype=np.uint8)
    label_map[5:10, 10:20] = 1
    label_map[12:14, 3:5] = 3

    draw_slice(axes, np.zeros(label_map.shape), label_map, title="slice", spacing=(2.0, 0.5))

    first, third = axes.collections
    assert to_rgb(first.get_edgecolor()[0]) == to_rgb(LABEL_COLOURS[0])
    assert to_rgb(third.get_edgecolor()[0]) == to_rgb(LABEL_COLOURS[2])
    (path,) = first.get_paths()
    low, high = path.vertices.min(axis=0), path.vertices.max(axis=0)
    assert low == pytest.approx([10 * 0.5, 5 * 2.0])  # x, z
    assert high == pytest.approx([20 * 0.5, 10 * 2.0])
    assert axes.get_title() == "slice"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (mm)", "z (mm)")


def test_the_image_stays_visible_inside_the_contours(axes):
    label_map = np.full((4, 4), 2, dtype=np.uint8)

    draw_slice(axes, np.zeros((4, 4)), label_map, title="", spacing=(1.0, 1.0))

    grey, area = axes.images
    assert 0 < area.get_array()[..., 3].max() < 0.5
    assert grey.get_array().shape == (4, 4)
    assert not axes.collections  # a label without a boundary has no contour


def test_without_a_label_map_only_the_image_is_drawn(axes):
    draw_slice(axes, np.zeros((4, 4)), None, title="", spacing=(1.0, 1.0))

    assert len(axes.images) == 1
