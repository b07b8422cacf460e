"""Pictures of label maps: sides of the body, colours, slices, films."""

import numpy as np
import pytest
from PIL import Image as Picture

from scanseg.errors import InputError, UsageError
from scanseg.figures import (
    Caption,
    Look,
    choose_slice,
    draw_montage,
    draw_planes,
    make_scene,
    render_plane,
    write_figure,
    write_film,
)
from scanseg.imaging import LABEL_COLOURS, Image, direction_of, find_reorientation
from tests.factories import image_of

SHAPE = (4, 6, 8)
"""Voxels along z, y, x of the phantom, whose axes run to S, P and L."""


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return an image and labels. Label 1 is at the feet, front and right; label 2 at the head, back and left."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0, :2, :3] = 1
    label_map[3, 4:, 5:] = 2
    return np.linspace(0, 100, label_map.size, dtype=np.float32).reshape(SHAPE), label_map


def in_orientation(codes: str) -> tuple[Image, np.ndarray]:
    """Return the phantom as stored with other axes."""
    order, flips = find_reorientation("LPS", codes)
    axes = tuple(axis for axis, is_reversed in enumerate(flips) if is_reversed)
    image, label_map = (np.flip(each.transpose(order), axes) for each in phantom())
    spacing = tuple((3.0, 1.0, 1.0)[axis] for axis in order)
    return Image(image[None], spacing, (0.0, 0.0, 0.0), direction_of(codes)), label_map


def colour(value: int) -> tuple[int, ...]:
    text = LABEL_COLOURS[value - 1]
    return tuple(int(text[start : start + 2], 16) for start in (1, 3, 5))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LIP", "SRA"])
def test_planes_show_the_right_voxels_whatever_the_stored_axes(codes):
    image, label_map = in_orientation(codes)
    scene = make_scene(image, label_map)
    assert scene.shape == SHAPE
    assert scene.spacing == (3.0, 1.0, 1.0)
    look = Look("contour", num_pixels=240, line_pixels=99)  # outlines fill the labels

    axial = render_plane(scene, 0, 0, look=look)  # rows A to P, columns R to L
    assert axial.shape == (180, 240, 3)
    assert tuple(axial[2, 2]) == colour(1)
    assert tuple(axial[2, -3]) != colour(1)
    assert tuple(render_plane(scene, 0, 3, look=look)[-3, -3]) == colour(2)

    coronal = render_plane(scene, 1, 0, look=look)  # rows S to I: the feet are at the bottom
    assert coronal.shape == (240, 160, 3)
    assert tuple(coronal[-3, 2]) == colour(1)
    assert len(set(coronal[2, 2])) == 1

    sagittal = render_plane(scene, 2, 7, look=look)  # columns A to P
    assert tuple(sagittal[2, -3]) == colour(2)


def test_slices_are_those_with_the_largest_part_of_all_labels():
    image, label_map = in_orientation("RAS")
    label_map = np.zeros_like(label_map)
    scene = make_scene(image, label_map)
    assert [choose_slice(scene, axis) for axis in range(3)] == [2, 3, 4]  # no labels: the middle
    scene.label_map[1, 2, 3:5] = 7
    scene.label_map[1, 4, 3] = 9
    scene.label_map[1, 4, 5] = 7
    assert [choose_slice(scene, axis) for axis in range(3)] == [1, 4, 3]
    focus = np.zeros(SHAPE, bool)
    focus[3, 5, 6] = True
    assert [choose_slice(scene, axis, focus=focus) for axis in range(3)] == [3, 5, 6]


def test_areas_are_blended_and_references_are_white_outlines():
    image = image_of(np.full((1, 20, 20), 50.0, np.float32))
    label_map, reference = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    label_map[5:15, 5:15], reference[8:18, 8:18] = 1, 1
    scene = make_scene(image, label_map, reference, window=(0, 100), labels={"a": (1,)})
    pixels = render_plane(scene, look=Look("fill", num_pixels=20, line_pixels=1))
    assert tuple(pixels[0, 0]) == (127, 127, 127)
    assert tuple(pixels[6, 6]) == tuple((127 + part) // 2 for part in colour(1))
    assert tuple(pixels[8, 12]) == (255, 255, 255)
    assert tuple(pixels[10, 10]) == tuple(pixels[6, 6])


def test_own_colours_of_labels_are_used():
    image = image_of(np.zeros((1, 8, 8), np.uint8))
    label_map = np.full((8, 8), 3, np.uint8)
    scene = make_scene(image, label_map, colours={3: (200, 10, 20)})
    assert tuple(scene.palette()[3]) == (200, 10, 20)
    assert scene.labels == {"3": (3,)}


def test_colour_pictures_keep_their_colours():
    array = np.zeros((3, 8, 8), np.uint8)
    array[1] = 200
    pixels = render_plane(make_scene(image_of(array)), look=Look(num_pixels=8))
    assert tuple(pixels[4, 4]) == (0, 200, 0)
    grey = render_plane(make_scene(image_of(array), channel=1, window=(0, 400)), look=Look(num_pixels=8))
    assert tuple(grey[4, 4]) == (127, 127, 127)


def test_the_window_leaves_out_the_padding_of_scanners():
    array = np.full((1, 10, 10, 10), -3024, np.int16)
    array[0, 2:8, 2:8, 2:8] = np.linspace(0, 1000, 216, dtype=np.int16).reshape(6, 6, 6)
    low, high = make_scene(image_of(array)).window
    assert 0 < low < 20
    assert 980 < high < 1000


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda image: make_scene(image, np.zeros((2, 2), np.uint8)), InputError),
        (lambda image: make_scene(image, channel=1), UsageError),
        (lambda image: make_scene(image, window=(5, 5)), UsageError),
        (lambda image: draw_montage(make_scene(image)), UsageError),
        (lambda image: write_film(make_scene(image), "a.gif"), UsageError),
    ],
)
def test_other_arguments_are_refused(make, error):
    with pytest.raises(error, match="expected"):
        make(image_of(np.zeros((1, 8, 8), np.uint8)))


def test_slices_outside_of_the_volume_are_refused():
    scene = make_scene(*in_orientation("RAS"))
    with pytest.raises(UsageError, match="at most 3, 5, 7"):
        draw_planes(scene, at=(0, 0, 8))


def test_a_picture_names_labels_with_volumes(tmp_path):
    scene = make_scene(*in_orientation("RAS"), labels={"$right$": (1,), "left": (2,), "absent": (3,)})
    figure = draw_planes(scene, at=(0, 1, 7), caption=Caption("a$b$", {"$right$": 0.018}))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"\$right\$  0.018 ml", "left"]
    assert [axes.get_title() for axes in figure.axes] == ["axial, z = 0", "coronal, y = 1", "sagittal, x = 7"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"A", "P", "R", "L"}
    write_figure(figure, tmp_path / "new" / "planes.png", dpi=60)
    with Picture.open(tmp_path / "new" / "planes.png") as picture:
        assert picture.width > picture.height


def test_a_montage_shows_the_slices_with_labels():
    image, label_map = in_orientation("LPS")
    label_map = label_map.copy()
    label_map[0] = 0
    label_map[1, 3, 3] = 1
    figure = draw_montage(make_scene(image, label_map), num_slices=9)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["z = 1", "z = 2", "z = 3"]


def test_a_film_has_a_frame_for_each_slice_from_head_to_feet(tmp_path):
    image, label_map = in_orientation("RAS")
    assert write_film(make_scene(image, label_map), tmp_path / "film.gif") == 4
    with Picture.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4
        last = np.array(film.convert("RGB"), int)
        film.seek(3)
        first = np.array(film.convert("RGB"), int)
    for pixels, value in ((last[-60, -60], 2), (first[60, 60], 1)):
        blue = np.argmax(colour(value))
        assert np.argmax(pixels) == blue


def test_mp4_without_its_packages_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match="pip install imageio av"):
        write_film(make_scene(*in_orientation("RAS")), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []
