"""Colours of labels and instances."""

import numpy as np
import pytest
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.imaging import read_label_map, write_instance_colours
from scanseg.imaging.palette import colour_instances, make_palette
from tests.factories import image_of


def assert_colours_differ(instances, colours):
    """Compare each pixel with its eight neighbours, one direction at a time."""
    colours_of = np.frombuffer(make_palette(), np.uint8).reshape(-1, 3)[colours]
    for direction in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = np.roll(instances, direction, (0, 1)), np.roll(colours_of, direction, (0, 1))
        inside = np.ones(instances.shape, bool)
        inside[:1], inside[:, :1], inside[:, -1:] = False, False, False
        border = inside & (instances != moved[0]) & (instances > 0) & (moved[0] > 0)
        assert (colours_of != moved[1]).any(axis=-1)[border].all()


def cells(rng, num_cells, *, size=120):
    """Divide a square into the regions of nearest random points, numbered up to 65535, with a background."""
    centres = np.ones((size, size), bool)
    centres[tuple(rng.integers(0, size, (2, num_cells)))] = False
    nearest = ndimage.distance_transform_edt(centres, return_distances=False, return_indices=True)
    _, regions = np.unique(nearest[0] * size + nearest[1], return_inverse=True)
    numbers = rng.permutation(65535)[: regions.max() + 1] + 1
    instances = numbers[regions.reshape(size, size)]
    instances[:20, :20] = 0
    return instances


@pytest.mark.parametrize("num_cells", [1, 2, 40, 1500])
def test_instances_that_touch_differ_in_colour(rng, num_cells):
    instances = cells(rng, num_cells)
    colours = colour_instances(instances)
    assert_colours_differ(instances, colours)
    np.testing.assert_array_equal(colours == 0, instances == 0)
    for number in np.unique(instances):
        assert len(np.unique(colours[instances == number])) == 1


def test_an_instance_with_many_neighbours_differs_from_all():
    instances = np.full((3, 61), 100)
    instances[0], instances[2] = np.arange(1, 62), np.arange(201, 262)
    colours = colour_instances(instances)
    assert_colours_differ(instances, colours)
    assert len(np.unique(colours)) >= 3


def test_maps_without_instances_are_black():
    assert not colour_instances(np.zeros((3, 4), np.uint16)).any()
    assert colour_instances(np.full((3, 4), 65535, np.uint16)).all()


def test_a_picture_of_an_instance_map(tmp_path, rng):
    instances = cells(rng, 40).astype(np.uint16)
    image = image_of(np.zeros((1, *instances.shape)))
    write_instance_colours(tmp_path / "colours" / "a.png", instances, like=image)
    written = read_label_map(tmp_path / "colours" / "a.png").array[0]
    np.testing.assert_array_equal(written, colour_instances(instances))
    with pytest.raises(InputError, match="shape"):
        write_instance_colours(tmp_path / "b.png", instances[1:], like=image)
