"""Files that hold no labels are recognized, in a short message."""

import numpy as np
import pytest

from scanseg.dataset import check_dataset, open_dataset
from scanseg.dataset.label_faults import describe_unknown_values
from scanseg.errors import InputError
from scanseg.imaging import read_image
from scanseg.runtime import RunContext

SHAPE = (5, 12, 10)


def faults_of(folder):
    with pytest.raises(InputError) as caught:
        check_dataset(open_dataset(folder), context=RunContext(num_workers=0))
    assert len(str(caught.value)) < 500
    return str(caught.value)


def blurred_mask(shape=(40, 60, 60)):
    """A ball of 255 with smooth edges."""
    z, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    distance = np.sqrt((z - 20) ** 2 + (y - 30) ** 2 + (x - 30) ** 2)
    return (255 * np.clip((18 - distance) / 3, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.int16, 500), (np.float32, 3.7), (np.float32, 1000), (np.uint16, 2000), (np.int32, 90000)],
)
def test_an_image_in_place_of_the_label_map(make_dataset, volume_writer, dtype, scale):
    folder = make_dataset(2)
    image = np.random.default_rng(0).normal(size=SHAPE) * scale
    volume_writer(
        folder / "labelsTr/case_1.nii.gz", (np.abs(image) if dtype == np.uint16 else image).astype(dtype)
    )
    message = faults_of(folder)
    assert "case case_1" in message
    assert "expected a label map, got an image" in message


def test_a_copy_of_an_image_of_8_bits(make_dataset, volume_writer):
    folder = make_dataset(2)
    image = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    volume_writer(folder / "imagesTr/case_1_0000.nii.gz", image)
    volume_writer(folder / "labelsTr/case_1.nii.gz", image)
    assert "got the image itself, not a label map" in faults_of(folder)


def test_another_image_of_8_bits(make_dataset, volume_writer):
    folder = make_dataset(2)
    image = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
    volume_writer(folder / "labelsTr/case_1.nii.gz", image)
    message = faults_of(folder)
    assert "unknown values from 3 to 255" in message
    assert "the intensities of an image, not a label map" in message


def test_a_mask_with_smoothed_edges(make_dataset, volume_writer):
    folder = make_dataset(2)
    mask = blurred_mask()
    volume_writer(
        folder / "imagesTr/case_1_0000.nii.gz", read_image(folder / "imagesTr/case_0_0000.nii.gz").array[0]
    )
    image = np.random.default_rng(0).integers(0, 9, mask.shape).astype(np.int16)
    volume_writer(folder / "imagesTr/case_1_0000.nii.gz", image)
    volume_writer(folder / "labelsTr/case_1.nii.gz", mask)
    message = faults_of(folder)
    assert "a mask with smoothed edges. Threshold it: (array > 127).astype('uint8')" in message
    assert "unknown values from" in message


def test_few_unknown_values_are_counted():
    spec = type("Spec", (), {"known_values": frozenset({0, 1})})()
    counts = {0: 90, 1: 5, 4: 3, 7: 1}
    text = describe_unknown_values("a.nii", None, counts, spec)
    assert text == (
        "label map a.nii: expected the labels 0, 1, got unknown values 4 (3 voxels), 7 (1 voxel). Correct dataset.json "
        "or the file."
    )


def test_an_instance_map_is_no_image(make_dataset, volume_writer):
    folder = make_dataset(2)
    instances = np.kron(np.arange(60).reshape(3, 4, 5), np.ones((2, 3, 4))).astype(np.uint8)[:5]
    volume_writer(
        folder / "imagesTr/case_1_0000.nii.gz", np.random.default_rng(0).integers(0, 9, instances.shape)
    )
    volume_writer(folder / "labelsTr/case_1.nii.gz", instances)
    message = faults_of(folder)
    assert "unknown values from 3 to" in message
    assert "image, not" not in message
