"""Small sources of the papers' data sets in their published layouts: bright shapes on noise."""

import json

import numpy as np

from scanseg.imaging import write_image, write_label_map
from tests.factories import image_of, write_picture


def volume(array):
    """Return a volume with thick slices."""
    return image_of(array[np.newaxis], spacing=(5.0, 1.5, 1.5))


def write_case(image_paths, label_path, *, seed, num_labels, shape=(6, 40, 44)):
    """Write noisy volumes, one for each channel, with a bright box for each label."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, num_labels + 1):
        y, x = divmod(label - 1, 4)
        labels[1:5, 2 + 9 * y : 9 + 9 * y, 2 + 10 * x : 10 + 10 * x] = label
    image_paths = image_paths if isinstance(image_paths, tuple) else (image_paths,)
    for path in (*image_paths, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in image_paths:
        write_image(path, volume((30 * labels + rng.normal(0, 8, shape)).astype(np.float32)))
    write_label_map(label_path, labels, like=volume(labels.astype(np.float32)))


def write_colour(path, inside, *, seed):
    """Write a colour picture that is brighter inside."""
    noise = np.random.default_rng(seed).normal(0, 10, (*inside.shape, 3))
    write_picture(path, 60 + 120 * (inside > 0)[..., None] + noise)


def disks(seed, *, count=3, shape=(64, 72)):
    """Return an instance map of disks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    numbers = np.zeros(shape, np.uint8)
    for index in range(count):
        centre = rng.uniform(12, 52, 2)
        numbers[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 60] = index + 1
    return numbers


def acdc(root):
    """The official layout: four training patients, one that validates, two that test."""
    for seed, patient in enumerate(("001", "004", "005", "006", "019", "002", "003")):
        folder = root / "training" / f"patient{patient}"
        for frame in ("01", "12"):
            name = f"patient{patient}_frame{frame}"
            write_case(
                folder / f"{name}.nii.gz", folder / f"{name}_gt.nii.gz", seed=seed + int(frame), num_labels=3
            )


def synapse(root):
    """BTCV: the files of the challenge; cases 0001 and 0008 are the published split's tests."""
    for seed, case in enumerate(("0005", "0006", "0007", "0009", "0010", "0001", "0008")):
        write_case(
            root / "img" / f"img{case}.nii.gz",
            root / "label" / f"label{case}.nii.gz",
            seed=seed,
            num_labels=13,
        )


def amos(root):
    """AMOS22: MRI cases have numbers above 500."""
    for seed, number in enumerate((507, 508, 510, 515, 518, 520)):
        name = f"amos_{number:04d}.nii.gz"
        write_case(root / "imagesTr" / name, root / "labelsTr" / name, seed=seed, num_labels=15)


def endovis(root):
    """Frames of two videos that train and one that tests, with a mask for each instrument."""
    for video, frames in ((1, range(3)), (2, range(3)), (9, range(2))):
        folder = root / f"instrument_dataset_{video}"
        for frame in frames:
            name, inside = f"frame{frame:03d}.png", disks(10 * video + frame, count=2)
            write_colour(folder / "left_frames" / name, inside, seed=frame)
            for number, instrument in enumerate(("Prograsp_Forceps", "Large_Needle_Driver"), start=1):
                write_picture(
                    folder / "ground_truth" / f"{instrument}_labels" / name, 20 * (inside == number)
                )


def neurips_cells(root):
    """A number for each cell; Tuning is the test part."""
    for part, count in (("Training-labeled", 6), ("Tuning", 2)):
        for number in range(count):
            numbers = disks(number)
            write_colour(root / part / "images" / f"{part[:2]}_{number:05d}.png", numbers, seed=number)
            write_picture(root / part / "labels" / f"{part[:2]}_{number:05d}_label.tiff", numbers)


def nuclei(root):
    """Pictures with a number for each object."""
    for number in range(8):
        numbers = disks(number)
        write_colour(root / "images" / f"case{number}.png", numbers, seed=number)
        write_picture(root / "instances" / f"case{number}.png", numbers)


def polyps(root):
    """Pictures with masks of 0 and 255."""
    for number in range(10):
        inside = disks(number, count=1) > 0
        write_colour(root / "images" / f"{number}.png", inside, seed=number)
        write_picture(root / "masks" / f"{number}.png", 255 * inside)


def brats(root):
    """Four channels and three tumour labels; of ten cases two test."""
    for number in range(10):
        case = f"BraTS-GLI-{number:05d}-000"
        channels = tuple(root / case / f"{case}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f"))
        write_case(channels, root / case / f"{case}-seg.nii.gz", seed=number, num_labels=3, shape=(8, 24, 40))


def hippocampus(root):
    """Task04 of the Decathlon."""
    names = [f"hippocampus_{number:03d}" for number in range(6)]
    for seed, name in enumerate(names):
        paths = (root / "imagesTr" / f"{name}.nii.gz", root / "labelsTr" / f"{name}.nii.gz")
        write_case(*paths, seed=seed, num_labels=2, shape=(8, 24, 28))
    description = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description))


SOURCES = {
    "synapse": synapse,
    "acdc": acdc,
    "abdomen-mr": amos,
    "endovis17": endovis,
    "neurips-cell": neurips_cells,
    "dsb2018": nuclei,
    "kvasir-seg": polyps,
    "brats23": brats,
    "hippocampus": hippocampus,
}
"""Name of a data set to a function that writes a small source of it."""
