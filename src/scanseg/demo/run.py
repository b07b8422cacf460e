"""Demo run: data set, training, prediction, scores and picture.

It calls the same functions as the commands.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanseg.cores import choose_threads
from scanseg.demo.anatomy import TISSUES, TRAINING_SLABS, UNSEEN_SLABS, case_names, make_dataset
from scanseg.demo.picture import SliceResults, write_picture
from scanseg.demo.thresholds import apply_thresholds, best_thresholds
from scanseg.demo.training import SETTINGS, DemoRecipe, NetworkJob
from scanseg.errors import UsageError
from scanseg.evaluation import score_case
from scanseg.experiments import run_jobs
from scanseg.files import is_unused, write_text
from scanseg.imaging import Image, read_image, read_label_map
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.runtime import RunContext, choose_device
from scanseg.specs import Report

_TITLES = {"thresholds": "best thresholds", "msvm-unet": "MSVM-UNet (2D)", "xlstm-unet": "xLSTM-UNet (3D)"}
"""Titles of the methods in the picture."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo."""

    network_dice: dict[str, dict[str, float | None]]
    """Mean Dice of each tissue over the unseen slabs, by the recipe of the network."""
    threshold_dice: dict[str, float]
    """Mean Dice of each tissue with the best thresholds."""
    label_maps: Path
    """Folder of the predicted label maps (NIfTI), with a folder for each recipe."""
    picture: Path
    """File with image, reference and predictions of two slices (PNG)."""
    seconds: float
    """Duration of the demo."""


def run(
    *,
    recipe: DemoRecipe | None = None,
    output: Path,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> DemoResult:
    """Train small networks on three slabs and score two unseen slabs.

    Two networks train at the same time, each in its own process, if the CPU has two cores. The best thresholds of the
    training images are scored on the same slabs for comparison.

    Args:
        recipe: Recipe of the network. `None`: one network in 2D and one in 3D.
        output: Folder to write. Results of an earlier demo are replaced.
        device: Device of training and prediction.
        progress: Called with each progress update.

    Raises:
        InputError: nilearn is not installed.
        UsageError: `output` holds files that no demo wrote.
        scanseg.errors.InterruptionError: SIGINT or SIGTERM came.
        ScansegError: A training failed. The message names its network.
    """
    begin = time.monotonic()
    _clear(output)
    dataset = make_dataset(output / "dataset")
    inputs = output / "unseen"
    inputs.mkdir()
    (output / "reports").mkdir()
    for name in UNSEEN_SLABS:
        shutil.copy(dataset / "imagesTr" / f"{name}_0000.nii.gz", inputs)
    jobs = [NetworkJob(each, SETTINGS[each], output) for each in ([recipe] if recipe else SETTINGS)]
    context = RunContext(device=device, num_workers=0, progress=progress)
    run_jobs(jobs, devices=_devices(device, len(jobs)), context=context, task="networks")
    network_dice = {job.name: Report.read(job.report).summary.label_means() for job in jobs}
    thresholds = _find_thresholds(dataset)
    threshold_dice = _score_thresholds(dataset, thresholds)
    return DemoResult(
        network_dice=network_dice,
        threshold_dice=threshold_dice,
        label_maps=output / "predictions",
        picture=_draw(
            dataset, output, dice={"thresholds": threshold_dice, **network_dice}, thresholds=thresholds
        ),
        seconds=time.monotonic() - begin,
    )


def _devices(device: str, num_jobs: int) -> tuple[str, ...]:
    """Return the device of each process that trains at the same time.

    Two networks share the cores of a CPU. A single core and a GPU train them in turn.
    """
    if choose_device(device).type == "cpu" and choose_threads(os.environ) >= num_jobs:
        return (device,) * num_jobs
    return (device,)


_MARK = "scanseg-demo.txt"


def _clear(output: Path) -> None:
    """Empty the folder of an earlier demo, or create the folder."""
    if output.exists() and not is_unused(output) and not (output / _MARK).is_file():
        raise UsageError(f"{output} holds files that no demo wrote. Choose another folder with -o.")
    output.mkdir(parents=True, exist_ok=True)
    for path in output.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _MARK:  # the mark stays, so that an interrupted run can be repeated
            path.unlink()
    write_text(output / _MARK, "Written by `scanseg demo`. The next run replaces this folder.\n")


def _read(dataset: Path, case: str) -> tuple[Image, np.ndarray]:
    """Read the image and the label map of a case."""
    image = read_image(dataset / "imagesTr" / f"{case}_0000.nii.gz")
    return image, read_label_map(dataset / "labelsTr" / f"{case}.nii.gz").array[0]


def _find_thresholds(dataset: Path) -> tuple[float, ...]:
    """Return the thresholds that are best on the training images."""
    training = [_read(dataset, case) for slab in TRAINING_SLABS for case in case_names(slab)]
    return best_thresholds(
        [image.array[0] for image, _ in training],
        [tissues for _, tissues in training],
        num_labels=len(TISSUES),
    )


def _score_thresholds(dataset: Path, thresholds: Sequence[float]) -> dict[str, float]:
    """Score thresholds on the unseen slabs."""
    labels = {name: (value,) for name, value in TISSUES.items()}
    scores = []
    for name in UNSEEN_SLABS:
        image, tissues = _read(dataset, name)
        predicted = apply_thresholds(image.array[0], thresholds)
        scores.append(score_case(predicted, tissues, spacing=image.spacing, labels=labels, surface=False))
    return {tissue: float(np.mean([score[tissue].dice for score in scores])) for tissue in TISSUES}


def _draw(
    dataset: Path,
    output: Path,
    *,
    dice: Mapping[str, Mapping[str, float | None]],
    thresholds: Sequence[float],
) -> Path:
    """Draw the middle slice of each unseen slab.

    The titles have the mean Dice of each method.

    Args:
        dataset: Folder of the data set.
        output: Folder of the demo.
        dice: Dice of each tissue by method: `thresholds`, or a recipe.
        thresholds: The best thresholds.
    """
    slices = []
    for name in UNSEEN_SLABS:
        image, reference = _read(dataset, name)
        label_maps = {"reference": reference}
        for method, scores in dice.items():
            if method == "thresholds":
                predicted = apply_thresholds(image.array[0], thresholds)
            else:
                predicted = read_label_map(output / "predictions" / method / f"{name}.nii.gz").array[0]
            mean = np.mean([score or 0.0 for score in scores.values()])
            label_maps[f"{_TITLES.get(method, method)}\nmean Dice {mean:.2f}"] = predicted
        middle = image.shape[1] // 2
        slices.append(
            SliceResults(
                image.array[0][:, middle],
                {title: label_map[:, middle] for title, label_map in label_maps.items()},
                spacing=(image.spacing[0], image.spacing[2]),
            )
        )
    path = output / "picture.png"
    write_picture(
        path,
        slices,
        labels=TISSUES,
        title="Coronal slices of slabs not seen in training (MNI152 brain with noise and shading)",
    )
    return path
