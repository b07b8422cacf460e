"""Small raw data sets, stores, plans and networks for tests.

Tests bind numbers that follow from these arrays, so every random draw keeps its seed, order and range.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from PIL import Image as Picture
from torch import nn

from scanseg.batches import Batch
from scanseg.dataset import find_images, find_splits, open_dataset
from scanseg.errors import refuse_faults
from scanseg.imaging import Image, write_label_map
from scanseg.inference.arrays import Network
from scanseg.inference.windows import SlidingWindow, predict_slabs
from scanseg.preprocessing import Store, build_store
from scanseg.runtime import RunContext
from scanseg.specs import (
    CaseMeasures,
    DatasetSpec,
    Fingerprint,
    IntensityStatistics,
    PlainUNetSpec,
    Plan,
    PreprocessingSpec,
    RescaleNormalization,
    SamplingSpec,
    Splits,
    XLSTMUNetSpec,
    ZScoreNormalization,
)

Case = tuple[np.ndarray | Sequence[np.ndarray], np.ndarray]
"""Image, or one array per channel file, and label map."""

# Files


def image_of(array: np.ndarray, *, spacing: Sequence[float] | None = None, origin: float = 0.0) -> Image:
    """Return an image of an array (channel, *spatial) with straight axes. `spacing` defaults to 1 mm."""
    axes = array.ndim - 1
    direction = tuple(np.eye(axes).ravel().tolist())
    return Image(array, tuple(spacing or (1.0,) * axes), (origin,) * axes, direction)


def write_volume(
    path: Path,
    array: np.ndarray,
    spacing: Sequence[float] = (3.0, 0.5, 0.75),
    *,
    origin: Sequence[float] | None = None,
    direction: Sequence[float] | None = None,
) -> None:
    """Write an array (z, y, x).

    Args:
        path: File with the ending of a medical format; its folder is created.
        array: Voxels.
        spacing: Along z, y, x, in mm.
        origin: In mm along x, y, z, as in the file. `None`: 0.
        direction: Rows of the matrix over x, y, z, as in the file. `None`: straight axes.
    """
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in reversed(spacing)])
    if origin is not None:
        image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def write_labels(path: Path, array: np.ndarray, *, spacing: Sequence[float] | None = None) -> None:
    """Write a label map with straight axes; its folder is created. `spacing` defaults to 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(path, array, like=image_of(array[None], spacing=spacing))


def write_picture(path: Path, array: np.ndarray, **options: object) -> None:
    """Write an array (y, x), or (y, x, 3) for RGB, clipped to 8 bits; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(array.clip(0, 255).astype(np.uint8)).save(path, **options)


def write_case(folder: Path, name: str, case: Case, *, file_ending: str = ".png", **grid: Any) -> None:
    """Write a training case into a raw data set.

    Args:
        folder: Folder of the data set.
        name: Name of the case.
        case: Image and label map.
        file_ending: Ending of its files.
        grid: Arguments of `write_volume`.
    """
    image, label_map = case
    write: Callable[..., None] = write_picture if file_ending == ".png" else write_volume
    for channel, array in enumerate([image] if isinstance(image, np.ndarray) else image):
        write(folder / "imagesTr" / f"{name}_{channel:04d}{file_ending}", array, **grid)
    write(folder / "labelsTr" / f"{name}{file_ending}", label_map, **grid)


def write_description(
    folder: Path,
    *,
    labels: Mapping[str, object],
    channels: Sequence[str] = ("gray",),
    file_ending: str = ".png",
    **fields: object,
) -> None:
    """Write `dataset.json`. `fields` are added to it or replace its fields."""
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": len(list((folder / "labelsTr").iterdir())),
        "file_ending": file_ending,
        **fields,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write_folds(folder: Path, *folds: tuple[Iterable[int], Iterable[int]]) -> None:
    """Write `splits_final.json`; a fold is the numbers of its training and of its validation cases."""
    content = [
        {
            part: [f"case_{number}" for number in numbers]
            for part, numbers in zip(("train", "val"), fold, strict=True)
        }
        for fold in folds
    ]
    (folder / "splits_final.json").write_text(json.dumps(content))


def write_dataset(
    folder: Path,
    cases: Mapping[str, Case],
    *,
    labels: Mapping[str, object],
    channels: Sequence[str] = ("gray",),
    file_ending: str = ".png",
    grid: Mapping[str, Any] | None = None,
    **fields: object,
) -> Path:
    """Write a raw data set and return its folder.

    Args:
        folder: New folder.
        cases: Name to image and label map.
        labels: As in `dataset.json`.
        channels: Names of the channels.
        file_ending: `.png`, or an ending of volumes.
        grid: Arguments of `write_volume`.
        fields: Further fields of `dataset.json`, or replacements.
    """
    for name, case in cases.items():
        write_case(folder, name, case, file_ending=file_ending, **(grid or {}))
    write_description(folder, labels=labels, channels=channels, file_ending=file_ending, **fields)
    return folder


# Cases


def disk(number: int) -> Case:
    """Return a gray picture (24, 24) of a bright disk on noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:24, :24]
    inside = (y - rng.uniform(8, 16)) ** 2 + (x - rng.uniform(8, 16)) ** 2 < 36
    image = 60 + 90 * inside + rng.normal(0, 10, inside.shape)
    return image.astype(np.uint8), inside.astype(np.uint8)


def colour_disk(number: int) -> Case:
    """Return an RGB picture (56, 64) of a reddish disk on bluish ground, with noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:56, :64]
    centre, radius = rng.uniform(16, 40, size=2), rng.uniform(9, 15)
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    image = np.where(inside[..., None], (170, 90, 80), (70, 90, 150)) + rng.normal(0, 25, (56, 64, 3))
    return image.clip(0, 255).astype(np.uint8), inside.astype(np.uint8)


def rings(number: int) -> Case:
    """Return a gray picture (40, 44) of three nested disks, with values 1 (outermost) to 3."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:40, :44]
    distance = np.hypot(y - rng.uniform(14, 26), x - rng.uniform(14, 30))
    values = sum((distance < radius).astype(np.uint8) for radius in (12, 8, 5))
    image = np.array([40, 90, 150, 220])[values] + rng.normal(0, 8, values.shape)
    return image.clip(0, 255).astype(np.uint8), values


def scribbled_disk(number: int) -> Case:
    """Return the picture of `rings` as one disk; two rows of three have the value 2, for an ignore label."""
    image, values = rings(number)
    label_map = (values > 0).astype(np.uint8)
    label_map[np.arange(len(label_map)) % 3 != 0] = 2
    return image, label_map


def ball_and_box(number: int) -> Case:
    """Return a volume (20, 26, 28) of a bright ball (1) and a dark box (2), with noise."""
    rng = np.random.default_rng(number)
    shape = (20, 26, 28)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    ball = ((z - rng.uniform(8, 12)) ** 2 + (y - 8) ** 2 + (x - rng.uniform(8, 20)) ** 2) < 36
    labels = ball.astype(np.uint8)
    start = rng.integers((3, 15, 3), (8, 17, 16))
    labels[tuple(slice(first, first + 9) for first in start)] = 2
    image = np.array([100.0, 160.0, 40.0])[labels] + rng.normal(0, 12, shape)
    return image.astype(np.float32), labels


def invisible_ball_and_box(rng: np.random.Generator) -> Case:
    """Return a volume (14, 24, 24) of noise alone, with a ball (1) and a box (2) in its label map."""
    z, y, x = np.mgrid[:14, :24, :24]
    ball = (2 * (z - 7)) ** 2 + (y - rng.uniform(8, 12)) ** 2 + (x - rng.uniform(6, 10)) ** 2 < 36
    box = (y > 12) & (x > rng.uniform(13, 17))
    label_map = np.where(ball, 1, np.where(box, 2, 0)).astype(np.uint8)
    return rng.integers(0, 255, label_map.shape).astype(np.uint8), label_map


def nested_ellipsoids(rng: np.random.Generator) -> Case:
    """Return a volume (8, 24, 22) of two nested ellipsoids, 1 and 2.

    Two rows of three have the value 3, for an ignore label.
    """
    z, y, x = np.mgrid[:8, :24, :22]
    distance = (3 * (z - 4)) ** 2 + (y - rng.uniform(9, 15)) ** 2 + (x - rng.uniform(8, 14)) ** 2
    values = (distance < 80).astype(np.uint8) + (distance < 25)
    image = (50 + 70 * values + rng.normal(0, 8, values.shape)).clip(0, 255).astype(np.uint8)
    values[:, np.arange(24) % 3 != 0] = 3
    return image, values


def nested_boxes(rng: np.random.Generator, shape: Sequence[int], *, num_channels: int = 1) -> Case:
    """Return a volume of a box (1) with a smaller one inside (2), brighter than the noise in every channel."""
    label_map = np.zeros(shape, dtype=np.uint8)
    label_map[1:4, 3:8, 2:6] = 1
    label_map[2, 4:6, 3:5] = 2
    channels = [rng.integers(1, 500, shape) + label_map * np.int64(300) for _ in range(num_channels)]
    return [channel.astype(np.int16) for channel in channels], label_map


# Data sets


def write_disks(folder: Path, *, numbers: Iterable[int] = range(5)) -> Path:
    """Write gray pictures with the label `disk`."""
    cases = {f"case_{number}": disk(number) for number in numbers}
    return write_dataset(folder, cases, labels={"background": 0, "disk": 1})


def write_colour_disks(folder: Path, *, num_cases: int) -> Path:
    """Write RGB pictures with the label `disk`."""
    cases = {f"case_{number}": colour_disk(number) for number in range(num_cases)}
    labels = {"background": 0, "disk": 1}
    return write_dataset(folder, cases, labels=labels, channels=("red", "green", "blue"))


def write_balls_and_boxes(folder: Path, *, num_cases: int) -> Path:
    """Write volumes with the labels `ball` and `box`, on an oblique, anisotropic grid."""
    return write_dataset(
        folder,
        {f"case_{number}": ball_and_box(number) for number in range(num_cases)},
        labels={"background": 0, "ball": 1, "box": 2},
        channels=("MR",),
        file_ending=".nii.gz",
        grid={
            "spacing": (1.5, 1.2, 1.0),
            "origin": (-20.0, 13.0, 5.0),
            "direction": (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0),
        },
    )


def write_invisible_balls_and_boxes(folder: Path) -> Path:
    """Write four volumes in two folds; their labels `ball` and `box` cannot be seen in the images."""
    rng = np.random.default_rng(0)
    write_dataset(
        folder,
        {f"case_{number}": invisible_ball_and_box(rng) for number in range(4)},
        labels={"background": 0, "ball": 1, "box": 2},
        channels=("MRI",),
        file_ending=".nii.gz",
        grid={"spacing": (1.0, 1.0, 1.0)},
    )
    write_folds(folder, ((2, 3), (0, 1)), ((0, 1), (2, 3)))
    return folder


def write_nested_ellipsoids(folder: Path) -> Path:
    """Write four volumes in one fold, with the regions `whole` and `inner` and an ignore label."""
    rng = np.random.default_rng(0)
    write_dataset(
        folder,
        {f"case_{number}": nested_ellipsoids(rng) for number in range(4)},
        labels={"background": 0, "whole": [1, 2], "inner": 2, "ignore": 3},
        channels=("MRI",),
        file_ending=".nii.gz",
        grid={"spacing": (3.0, 1.0, 1.0)},
        regions_class_order=[1, 2],
    )
    write_folds(folder, ((0, 1, 2), (3,)))
    return folder


def write_nested_boxes(
    folder: Path,
    num_cases: int = 3,
    *,
    num_channels: int = 1,
    shape: Sequence[int] = (5, 12, 10),
    **fields: object,
) -> Path:
    """Write volumes with the labels `outer` and `inner`. `fields` replace fields of `dataset.json`."""
    rng = np.random.default_rng(0)
    return write_dataset(
        folder,
        {
            f"case_{number}": nested_boxes(rng, shape, num_channels=num_channels)
            for number in range(num_cases)
        },
        channels=[f"c{channel}" for channel in range(num_channels)],
        file_ending=".nii.gz",
        **{"labels": {"background": 0, "outer": 1, "inner": 2}, **fields},
    )


def write_noisy_boxes(folder: Path, spacings: Sequence[Sequence[float]]) -> Path:
    """Write volumes with the label `box`, one for each spacing (z, y, x)."""
    box = np.zeros((8, 16, 16), np.uint8)
    box[2:6, 4:12, 4:12] = 1
    image = (np.random.default_rng(0).normal(0, 1, box.shape) + box).astype(np.float32)
    for number, spacing in enumerate(spacings):
        write_case(folder, f"case_{number}", (image, box), file_ending=".nii.gz", spacing=spacing)
    labels = {"background": 0, "box": 1}
    write_description(folder, labels=labels, channels=("MRI",), file_ending=".nii.gz")
    return folder


def write_store(dataset: Path, folder: Path, *, splits: Splits | None = None, **preprocessing: Any) -> Store:
    """Preprocess a raw data set in this process, by default with intensities rescaled to -1 to 1.

    Args:
        dataset: Folder of the data set.
        folder: New folder of the store.
        splits: `None`: those of the data set.
        preprocessing: Fields of `PreprocessingSpec`.
    """
    raw = open_dataset(dataset)
    default = {"normalizations": (RescaleNormalization(low=-1, high=1),) * len(raw.spec.channel_names)}
    return build_store(
        raw,
        preprocessing=PreprocessingSpec(**(default | preprocessing)),
        splits=splits or find_splits(raw),
        folder=folder,
        context=RunContext(num_workers=0),
    )


# Plans and networks

SMALL_XLSTM_UNET_2D = (
    *("sampling.patch_size=[16, 16]", "sampling.batch_size=2", "network.features=[4, 8]"),
    *("network.strides=[[1, 1], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
    *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1", "augmentation=[]"),
)
"""Settings for two stages of xLSTM-UNet, with which an epoch takes less than a second."""

XLSTM_UNET_2D = XLSTMUNetSpec(
    features=(4, 8), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2, num_blocks_encoder=1
)
"""Two stages of xLSTM-UNet."""

DISCS = DatasetSpec(
    name="discs", channel_names=("MRI",), labels={"background": 0, "disc": 1}, file_ending=".png"
)
"""Pictures with one label."""


def plain_unet(num_axes: int) -> PlainUNetSpec:
    """Return nnU-Net's plain U-Net with two stages of one convolution."""
    return PlainUNetSpec(
        features=(4, 8),
        kernel_sizes=((3,) * num_axes,) * 2,
        strides=((1,) * num_axes, (2,) * num_axes),
        num_convs_encoder=(1, 1),
        num_convs_decoder=(1,),
    )


def make_plan(
    network: Any = XLSTM_UNET_2D,
    *,
    patch_size: Sequence[int] = (16, 16),
    preprocessing: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Plan:
    """Return a plan of `DISCS` in batches of two.

    Args:
        network: Document of the network.
        patch_size: Its axes are those of the data set too, unless `num_axes` is given.
        preprocessing: Fields of `PreprocessingSpec`. Normalizations default to z-scores, the orientation of volumes
            to LPS.
        fields: Fields of `Plan`.
    """
    dataset = fields.get("dataset", DISCS)
    num_axes = fields.get("num_axes", len(patch_size))
    steps = {
        "normalizations": (ZScoreNormalization(),) * len(dataset.channel_names),
        "orientation": "LPS" if num_axes == 3 else None,
    }
    default = {
        "recipe": "test",
        "dataset": dataset,
        "num_axes": len(patch_size),
        "preprocessing": PreprocessingSpec(**(steps | dict(preprocessing or {}))),
        "sampling": SamplingSpec(patch_size=tuple(patch_size), batch_size=2),
        "augmentation": (),
        "network": network,
    }
    return Plan(**(default | fields))


def make_square_batch(size: int, iteration: int, *, device: str | torch.device = "cpu") -> Batch:
    """Return two gray pictures (size, size) of a bright rectangle, whose start depends on the iteration."""
    generator = torch.Generator().manual_seed(iteration)
    label_maps = torch.zeros(2, size, size, dtype=torch.uint8)
    label_maps[:, : size // 2, iteration % 4 : size // 2] = 1
    images = label_maps.unsqueeze(1) * 2.0 + 0.3 * torch.randn(2, 1, size, size, generator=generator)
    return Batch(images.to(device), label_maps.to(device))


class Threshold(nn.Module):
    """Network with label 1 wherever the first channel exceeds one half."""

    def __init__(self, num_outputs: int = 2) -> None:
        """Set the number of outputs; further ones are never chosen."""
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits = batch.new_full((len(batch), self.num_outputs, *batch.shape[2:]), -9.0)
        logits[:, 0] = 0
        logits[:, 1] = batch[:, 0] - 0.5
        return logits


def join_slabs(
    networks: Sequence[Network], image: torch.Tensor, sliding_window: SlidingWindow, **options: Any
) -> torch.Tensor:
    """Return the logits of a whole image by `predict_slabs`."""
    slabs = predict_slabs(networks, image, sliding_window, **options)
    return torch.cat([slab.clone() for slab in slabs], dim=1)


# Fingerprints


STANDARD_INTENSITIES = IntensityStatistics(
    mean=0.0,
    median=0.0,
    standard_deviation=1.0,
    minimum=-1.0,
    maximum=1.0,
    percentile_00_5=-1.0,
    percentile_99_5=1.0,
)
"""Statistics of intensities with mean 0 and standard deviation 1."""


def make_fingerprint(
    spacings: Sequence[tuple[float, ...]],
    shapes: Sequence[tuple[int, ...]],
    *,
    intensities: IntensityStatistics = STANDARD_INTENSITIES,
    num_axes: int = 3,
    num_channels: int = 1,
    relative_size_after_crop: float = 1.0,
) -> Fingerprint:
    """Return the fingerprint of a data set that does not exist, with one spacing and shape per case."""
    cases = tuple(
        CaseMeasures(case=f"c{number}", spacing=spacing, shape=shape, source_shape=shape)
        for number, (spacing, shape) in enumerate(zip(spacings, shapes, strict=True))
    )
    return Fingerprint(
        num_axes=num_axes,
        cases=cases,
        intensities=(intensities,) * num_channels,
        median_relative_size_after_crop=relative_size_after_crop,
    )


def find_cases(folder, *, file_ending, num_channels):
    """Return the cases of a folder of images. Faults of cases are an error."""
    found = find_images(folder, file_ending=file_ending, num_channels=num_channels)
    refuse_faults(folder, [fault for case in found.faulty for fault in case.named_faults])
    return found.cases
