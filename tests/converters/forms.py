"""Small sources in the layouts of the named data sets."""

import json

import numpy as np
import pytest

from scanseg.converters import NAMED_DATASETS, convert_dataset
from scanseg.dataset.check import check_dataset
from scanseg.dataset.raw import open_dataset
from scanseg.errors import InputError
from scanseg.imaging import read_label_map, write_image, write_instance_map, write_label_map
from scanseg.runtime import RunContext
from tests import factories
from tests.factories import write_picture, write_volume


def image_of(array, *, spacing=None):
    """Return an image of an array (channel, *spatial). Spacing and origin are not 1 and 0 mm."""
    axes = array.ndim - 1
    return factories.image_of(array, spacing=spacing or (2.0, 0.8, 0.8)[-axes:], origin=1.0)


def write_pair(image_path, label_path, label_map, *, channel=0, spacing=None):
    """Write a noisy volume and its labels."""
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(label_map.size + channel)
    array = (rng.normal(0, 200, label_map.shape) + 40 * label_map).astype(np.int16)[np.newaxis]
    image = image_of(array, spacing=spacing)
    write_image(image_path, image)
    write_label_map(label_path, label_map, like=image)
    return array


def labels_of(values, shape=(3, 6, 8)):
    """Return a label map with every value."""
    label_map = np.zeros(shape, np.uint8)
    label_map.reshape(-1)[: len(values)] = values
    return label_map


def picture(path, shape=(20, 24), *, seed=0, channels=3):
    """Write a colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (channels, *shape)).astype(np.uint8)
    if path.suffix == ".png":
        write_image(path, image_of(array, spacing=(1.0, 1.0)))
    else:
        write_picture(path, np.moveaxis(array, 0, -1) if channels == 3 else array[0])
    return array


def mask(path, inside, *, value=255):
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = inside.astype(np.uint8) * np.uint8(value)
    if path.suffix == ".png":
        write_label_map(path, array, like=image_of(array[np.newaxis], spacing=(1.0, 1.0)))
    else:
        write_picture(path, array, quality=90)


def numbers(path, array):
    """Write an instance map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_instance_map(path, array, like=image_of(array[np.newaxis], spacing=(1.0, 1.0)))


def describe(folder, **content):
    """Write a dataset.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def two_cells(shape=(20, 24)):
    """Return an instance map of two touching instances and a separate one."""
    array = np.zeros(shape, np.int32)
    array[3:9, 3:9], array[3:9, 9:15], array[12:17, 5:12] = 7, 300, 2
    return array


def convert(name, source, output, *, num_workers=0, **options):
    """Convert a source, then open and check the data set."""
    context = RunContext(num_workers=num_workers)
    result = convert_dataset(NAMED_DATASETS[name], source, output, **options, context=context)
    dataset = open_dataset(output)
    check_dataset(dataset, context=RunContext(num_workers=0))
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".converting")]
    return result, dataset


def names(dataset):
    return [case.name for case in dataset.cases]


def label_map(folder, name, *, part="Tr", ending=".nii.gz"):
    return read_label_map(folder / f"labels{part}" / f"{name}{ending}").array[0]


def refused(name, source, output):
    """Convert a faulty source and return the message. Check that no files are left."""
    with pytest.raises(InputError) as caught:
        convert_dataset(NAMED_DATASETS[name], source, output, context=RunContext(num_workers=0))
    assert not output.exists()
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".converting")]
    return str(caught.value)


def raw_abdomen(root, organs, *, channels=None):
    for part, case in (("Tr", "amos_0507"), ("Ts", "own_0001")):
        write_pair(
            root / f"images{part}" / f"{case}_0000.nii.gz",
            root / f"labels{part}" / f"{case}.nii.gz",
            labels_of(range(14)),
        )
    describe(
        root,
        channel_names=channels or {"0": "MRI"},
        labels={"background": 0, **organs},
        numTraining=1,
        file_ending=".nii.gz",
    )


def transunet(root):
    """Write slices of case 0005 and a volume of case 0008, and return their arrays."""
    rng = np.random.default_rng(0)
    volumes = {}
    for case in ("0005", "0008"):
        image = rng.random((3, 6, 8)).astype(np.float32)
        volumes[case] = image, labels_of(range(9))
    (root / "train_npz").mkdir(parents=True)
    for index in range(3):
        np.savez(
            root / "train_npz" / f"case0005_slice{index:03d}.npz",
            image=volumes["0005"][0][index],
            label=volumes["0005"][1][index].astype(np.float32),
        )
    h5py = pytest.importorskip("h5py", reason="test volumes are HDF5: pip install h5py")
    (root / "test_vol_h5").mkdir()
    with h5py.File(root / "test_vol_h5" / "case0008.npy.h5", "w") as file:
        file["image"], file["label"] = volumes["0008"]
    return volumes


def link_some(source, target, folders, *, number):
    """Link the first files of folders of a real data set."""
    for folder in folders:
        (target / folder).mkdir(parents=True)
        for path in sorted((source / folder).iterdir())[:number]:
            (target / folder / path.name).symlink_to(path)


# own folders

SHAPE = (20, 24)


def squares(*values):
    """Return a picture of squares with these values on 0."""
    array = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        array[2:8, 2 + 7 * place : 7 + 7 * place] = value
    return array


def volume_pair(image, label_map, labels, *, seed=0):
    """Write a noisy volume with its label map, 2 x 1 x 1 mm."""
    noise = np.random.default_rng(seed).normal(0, 100, labels.shape).astype(np.int16)
    write_volume(image, noise + 50 * labels.astype(np.int16), (2.0, 1.0, 1.0))
    write_volume(label_map, labels, (2.0, 1.0, 1.0))


def box(value=1, shape=(6, 10, 12)):
    labels = np.zeros(shape, np.uint8)
    labels[2:4, 3:6, 3:7] = value
    return labels


def colour_masks(folder):
    """Write two pictures with colour masks: red and green squares, and blue ones."""
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    for name, colours in (("a", (red, green)), ("b", (green, blue))):
        picture(folder / "images" / f"{name}.png", SHAPE)
        mask = np.zeros((*SHAPE, 3), np.uint8)
        for place, colour in enumerate(colours):
            mask[2:8, 2 + 7 * place : 7 + 7 * place] = colour
        write_picture(folder / "masks" / f"{name}.png", mask)


def named_channels(folder, channels=("t1", "flair")):
    """Write two cases in folders of their own, with a file for each channel."""
    for case in ("B_1", "B_2"):
        for seed, channel in enumerate(channels):
            inside = folder / case
            volume_pair(inside / f"{case}_{channel}.nii.gz", inside / f"{case}_seg.nii.gz", box(), seed=seed)


def structures(folder):
    """Write two cases in folders of their own, with masks of liver and spleen."""
    for case in ("s1", "s2"):
        masks = folder / case / "segmentations"
        volume_pair(folder / case / "ct.nii.gz", masks / "liver.nii.gz", box())
        write_volume(masks / "spleen.nii.gz", np.roll(box(), 4, axis=2), (2.0, 1.0, 1.0))
