"""Demo run: data set, training, prediction, scores and picture.

It calls the same functions as the commands.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scanseg import api
from scanseg.demo.anatomy import TISSUES, TRAINING_SLABS, UNSEEN_SLABS, make_dataset
from scanseg.demo.picture import write_picture
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
        "training.epochs=6",
        "training.iterations_per_epoch=100",
    ),
    "msvm-unet": (
        *_SHARED_SETTINGS,
        "preprocessing.axis_order=[1, 0, 2]",
        "preprocessing.slice_size=[160, 160]",
        "sampling.patch_size=[160, 160]",
        "sampling.batch_size=6",
        "network.dims=[24, 48, 96, 192]",
        "network.depths=[1, 1, 2, 1]",
        "network.decoder_depth=1",
        "training.epochs=24",
    ),
}
"""Settings of each recipe for a small network and a short training."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo."""

    network_dice: dict[str, float | None]
    """Mean Dice of each tissue over the unseen slabs."""
    threshold_dice: dict[str, float]
    """Mean Dice of each tissue with the two best thresholds."""
    label_maps: Path
    """Folder of the predicted label maps (NIfTI)."""
    picture: Path
    """File with image, reference and prediction of a slice (PNG)."""
    seconds: float
    """Duration of the demo."""


def run(
    *,
    recipe: DemoRecipe = "xlstm-unet",
    output: Path,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> DemoResult:
    """Train a small network on two slabs and score two unseen slabs.

    The best two thresholds are scored on the same slabs for comparison.

    Args:
        recipe: Recipe of the network.
        output: Folder to write. Results of an earlier demo are replaced.
        device: Device of training and prediction.
        progress: Called with each progress update.

    Raises:
        InputError: nilearn is not installed.
        UsageError: `output` holds other files than those of a demo.
    """
    begin = time.monotonic()
    _clear(output)
    dataset = make_dataset(output / "dataset")
    inputs = output / "unseen"
    inputs.mkdir()
    for name in UNSEEN_SLABS:
        shutil.copy(dataset / "imagesTr" / f"{name}_0000.nii.gz", inputs)
    api.train(
        dataset,
        output / "model",
        recipe=recipe,
        device=device,
        settings=_SETTINGS[recipe],
        num_workers=0,
        progress=progress,
    )
    predictor = api.load(output / "model", device=device)
    predictor.predict_folder(inputs, output / "predictions", progress=progress)
    report = api.evaluate(
        output / "predictions", dataset / "labelsTr", cases=UNSEEN_SLABS, num_workers=0, progress=progress
    )
    write_text(output / "report.json", report.to_json())
    return DemoResult(
        network_dice=report.summary.label_means(),
        threshold_dice=_score_thresholds(dataset),
        label_maps=output / "predictions",
        picture=_draw(dataset, output, recipe=recipe),
        seconds=time.monotonic() - begin,
    )


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


def _read(dataset: Path, name: str) -> tuple[Image, np.ndarray]:
    """Read the image and the label map of a slab."""
    image = read_image(dataset / "imagesTr" / f"{name}_0000.nii.gz")
    return image, read_label_map(dataset / "labelsTr" / f"{name}.nii.gz").array[0]


def _score_thresholds(dataset: Path) -> dict[str, float]:
    """Score thresholds chosen on the training slabs on the unseen slabs."""
    training = [_read(dataset, name) for name in TRAINING_SLABS]
    thresholds = best_thresholds(
        [image.array[0] for image, _ in training], [tissues for _, tissues in training]
    )
    labels = {name: (value,) for name, value in TISSUES.items()}
    scores = []
    for name in UNSEEN_SLABS:
        image, tissues = _read(dataset, name)
        predicted = apply_thresholds(image.array[0], thresholds)
        scores.append(score_case(predicted, tissues, spacing=image.spacing, labels=labels, surface=False))
    return {tissue: float(np.mean([score[tissue].dice for score in scores])) for tissue in TISSUES}


def _draw(dataset: Path, output: Path, *, recipe: str) -> Path:
    """Draw the middle slice of the first unseen slab."""
    name = UNSEEN_SLABS[0]
    image, reference = _read(dataset, name)
    prediction = read_label_map(output / "predictions" / f"{name}.nii.gz").array[0]
    middle = image.shape[1] // 2
    path = output / "picture.png"
    write_picture(
        path,
        image=image.array[0][:, middle],
        reference=reference[:, middle],
        prediction=prediction[:, middle],
        spacing=(image.spacing[0], image.spacing[2]),
        labels=TISSUES,
        title=f"{recipe} on an unseen coronal slice (MNI152 template with noise and shading)",
    )
    return path
