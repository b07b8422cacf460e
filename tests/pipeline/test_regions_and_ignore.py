"""Overlapping labels and partly annotated images, from a data set to scores by the command line."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from tests.factories import rings, scribbled_disk, write_dataset

FAST = (
    *("sampling.patch_size=[32, 32]", "sampling.batch_size=4", "network.features=[8, 16, 16]"),
    *("network.strides=[[1, 1], [2, 2], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3], [3, 3]]"),
    *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1", "augmentation=[]"),
    *("training.iterations_per_epoch=20", "training.validation_batches=2"),
    'training.optimizer={"kind": "adamw", "lr": 0.003}',
)
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "hot": 3}
IGNORING = {"background": 0, "disk": 1, "ignore": 2}


def write_cases(folder, draw, **options):
    """Write five pictures."""
    return write_dataset(folder, {f"case_{number}": draw(number) for number in range(5)}, **options)


def train(command, dataset, model, *, settings=FAST, epochs=4):
    words = [word for setting in settings for word in ("--set", setting)]
    options = ("--epochs", epochs, "--device", "cpu", "--num-workers", 0, *words)
    outcome = command("train", dataset, "-o", model, *options)
    assert outcome.code == 0, outcome.stderr
    return outcome


def predict_and_evaluate(command, model, dataset, folder):
    outcome = command(
        "predict", model, dataset / "imagesTr", "-o", folder, "--device", "cpu", "--probabilities"
    )
    assert outcome.code == 0, outcome.stderr
    report = folder.with_suffix(".json")
    outcome = command("evaluate", folder, dataset / "labelsTr", "-o", report, "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    return json.loads(report.read_text())


def test_regions_are_learnt_each_by_itself(command, tmp_path):
    dataset = write_cases(tmp_path / "rings", rings, labels=REGIONS, regions_class_order=[1, 2, 3])

    outcome = train(command, dataset, tmp_path / "model")
    report = predict_and_evaluate(command, tmp_path / "model", dataset, tmp_path / "predictions")

    assert all(name in outcome.stdout for name in ("whole", "core", "hot"))
    dice = {name: label["dice"]["mean"] for name, label in report["summary"]["labels"].items()}
    assert set(dice) == {"whole", "core", "hot"}
    assert min(dice.values()) > 0.8, dice  # measured: 0.92 and more
    label_map = np.asarray(Image.open(tmp_path / "predictions" / "case_0.png"))
    probabilities = np.load(tmp_path / "predictions" / "case_0.npz")["probabilities"].reshape(3, 40, 44)
    for number, value in enumerate((1, 2, 3)):
        assert ((probabilities[number] > 0.5) <= (label_map >= value)).all()
    metrics = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert set(metrics[-1]["validation_dice"]) == {"whole", "core", "hot"}


def test_rows_without_annotation_are_learnt_from_the_others(command, tmp_path):
    scribbles = write_cases(tmp_path / "scribbles", scribbled_disk, labels=IGNORING)
    whole = write_cases(
        tmp_path / "whole",
        lambda number: (rings(number)[0], (rings(number)[1] > 0).astype(np.uint8)),
        labels={"background": 0, "disk": 1},
    )

    train(command, scribbles, tmp_path / "model")
    report = predict_and_evaluate(command, tmp_path / "model", scribbles, tmp_path / "predictions")

    assert report["ignore_label"] == 2
    assert report["summary"]["labels"]["disk"]["dice"]["mean"] > 0.8
    complete = [
        np.asarray(Image.open(folder / f"case_{number}.png"))
        for number in range(5)
        for folder in (tmp_path / "predictions", whole / "labelsTr")
    ]
    predicted, real = np.stack(complete[::2]), np.stack(complete[1::2])
    assert set(np.unique(predicted)) == {0, 1}
    # Rows between the annotated ones are segmented too; measured: 0.95.
    assert 2 * (predicted & real).sum() / (predicted.sum() + real.sum()) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tumours_of_real_brains_by_regions(command, shared_data, tmp_path):
    """brats2015: the values overlap, and the order of the regions is not that of their values."""
    settings = (
        *("sampling.patch_size=[32, 64, 64]", "sampling.batch_size=2", "network.features=[8, 16, 32]"),
        "network.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]]",
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3]]",
        *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1", "augmentation=[]"),
        *("training.iterations_per_epoch=80", "training.validation_batches=2"),
        *("inference.overlap=0.1", "sampling.foreground_fraction=0.5"),
        'training.optimizer={"kind": "adamw", "lr": 0.003}',
    )
    dataset, images = shared_data / "brats2015", tmp_path / "images"

    train(command, dataset, tmp_path / "model", settings=settings, epochs=2)
    case = json.loads((tmp_path / "model" / "run.json").read_text())["validation_cases"][0]
    images.mkdir()
    for channel in range(2):
        name = f"{case}_{channel:04d}.nii.gz"
        (images / name).symlink_to(dataset / "imagesTr" / name)
    outcome = command(
        "predict", tmp_path / "model", images, "-o", tmp_path / "predictions", "--device", "cpu"
    )

    assert outcome.code == 0, outcome.stderr
    label_map = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "predictions" / f"{case}.nii.gz")))
    assert set(np.unique(label_map)) <= {0, 1, 2, 4}
    report = json.loads((tmp_path / "model" / "validation.json").read_text())
    dice = {name: label["dice"]["mean"] for name, label in report["summary"]["labels"].items()}
    assert set(dice) == {"whole tumour", "tumour core", "enhancing tumour"}
    assert dice["whole tumour"] > 0.3, dice
