"""Demo run: data set, training, prediction, scores and picture.

It calls the same functions as the commands.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scanseg import api
from scanseg.demo.anatomy import TISSUES, TRAINING_SLABS, UNSEEN_SLABS, case_names, make_dataset
from scanseg.demo.picture import SliceResults, write_picture
from scanseg.demo.thresholds import apply_thresholds, best_thresholds
from scanseg.errors import UsageError
from scanseg.evaluation import score_case
from scanseg.files import is_unused, write_text
from scanseg.imaging import Image, read_image, read_label_map
from scanseg.progress import ProgressCallback, ignore_progress

DemoRecipe = Literal["xlstm-unet", "msvm-unet"]

_SHARED_SETTINGS = (
    'preprocessing.normalizations=[{"kind": "none"}]',
    'augmentation=[{"kind": "brightness", "factor_range": [0.6, 1.4]}, {"kind": "mirror", "axes": [0, 1]}]',
    'training.optimizer={"kind": "adamw", "lr": 0.004, "weight_decay": 0.01}',
    'training.schedule={"kind": "cosine", "final_lr": 1e-5, "warmup_fraction": 0.05}',
    "training.validation_batches=4",
)
"""Settings of both recipes.

The slabs share one scale of intensities and differ in shading, so the augmentation changes the brightness.
"""
_SETTINGS: dict[DemoRecipe, tuple[str, ...]] = {
    "msvm-unet": (
        *_SHARED_SETTINGS,
        "preprocessing.axis_order=[1, 0, 2]",
        "preprocessing.slice_size=[160, 160]",
        "sampling.patch_size=[160, 160]",
        "sampling.batch_size=6",
        "network.dims=[24, 48, 96, 192]",
        "network.depths=[1, 1, 2, 1]",
        "network.decoder_depth=1",
        "training.epochs=5",
    ),
    "xlstm-unet": (
        *_SHARED_SETTINGS,
        "sampling.patch_size=[32, 32, 32]",
        "sampling.batch_size=2",
        "network.variant=bot",
        "network.features=[16, 32, 48, 64]",
        "network.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]",
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]",
        "network.num_blocks_encoder=1",
        "network.num_blocks_decoder=1",
        "training.epochs=3",
        "training.iterations_per_epoch=80",
        "inference.overlap=0.25",
    ),
}
"""Settings of each recipe for a small network and a short training."""
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

    The best thresholds of the training images are scored on the same slabs for comparison.

    Args:
        recipe: Recipe of the network. `None`: one network in 2D and one in 3D.
        output: Folder to write. Results of an earlier demo are replaced.
        device: Device of training and prediction.
        progress: Called with each progress update.

    Raises:
        InputError: nilearn is not installed.
        UsageError: `output` holds files that no demo wrote.
    """
    begin = time.monotonic()
    _clear(output)
    dataset = make_dataset(output / "dataset")
    inputs = output / "unseen"
    inputs.mkdir()
    (output / "reports").mkdir()
    for name in UNSEEN_SLABS:
        shutil.copy(dataset / "imagesTr" / f"{name}_0000.nii.gz", inputs)
    recipes = tuple(_SETTINGS) if recipe is None else (recipe,)
    network_dice: dict[str, dict[str, float | None]] = {
        each: _train_and_score(each, dataset, inputs, output=output, device=device, progress=progress)
        for each in recipes
    }
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


def _train_and_score(
    recipe: DemoRecipe,
    dataset: Path,
    inputs: Path,
    *,
    output: Path,
    device: str,
    progress: ProgressCallback,
) -> dict[str, float | None]:
    """Train a network and return its Dice on the unseen slabs."""
    model, predictions = output / "models" / recipe, output / "predictions" / recipe
    api.train(
        dataset,
        model,
        recipe=recipe,
        device=device,
        settings=_SETTINGS[recipe],
        num_workers=0,
        progress=progress,
    )
    api.load(model, device=device).predict_folder(inputs, predictions, progress=progress)
    report = api.evaluate(
        predictions, dataset / "labelsTr", cases=UNSEEN_SLABS, num_workers=0, progress=progress
    )
    write_text(output / "reports" / f"{recipe}.json", report.to_json())
    return report.summary.label_means()


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
