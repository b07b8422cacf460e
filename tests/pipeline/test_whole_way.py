"""The command line from a data set to a scored segmentation, on easy images."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

FAST = ("augmentation=[]", "training.checkpoint_seconds=0")
SLICES = (
    *("network.dims=[16, 24, 32, 48]", "network.depths=[1, 1, 1, 1]", "network.decoder_depth=1"),
    *("network.drop_path=0", "training.optimizer.lr=0.003", *FAST),
)
PATCHES = (
    *("sampling.batch_size=2", "network.features=[8, 16, 16]", "network.num_blocks_encoder=1"),
    *("network.num_blocks_decoder=1", "training.iterations_per_epoch=20", *FAST),
    'training.optimizer={"kind": "adamw", "lr": 0.003}',
)


def options(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@dataclass(frozen=True)
class Way:
    """One data set, one recipe, and the options of a user."""

    dataset: str
    recipe: str
    settings: Sequence[str]
    epochs: int
    ending: str


WAYS = (
    Way(
        "raster_dataset",
        "msvm-unet",
        ("preprocessing.slice_size=[64, 64]", "sampling.patch_size=[64, 64]", *SLICES),
        epochs=12,
        ending=".png",
    ),
    Way(
        "volume_dataset",
        "msvm-unet",
        (
            "preprocessing.slice_size=[32, 32]",
            "sampling.patch_size=[32, 32]",
            "sampling.batch_size=8",
            *SLICES,
        ),
        epochs=14,
        ending=".nii.gz",
    ),
    Way(
        "raster_dataset",
        "xlstm-unet",
        (
            *("sampling.patch_size=[48, 48]", "network.strides=[[1, 1], [2, 2], [2, 2]]"),
            *("network.kernel_sizes=[[3, 3], [3, 3], [3, 3]]", *PATCHES),
        ),
        epochs=4,
        ending=".png",
    ),
    Way(
        "volume_dataset",
        "xlstm-unet",
        (
            *("sampling.patch_size=[16, 24, 24]", "network.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]]"),
            *("network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3]]", *PATCHES),
        ),
        epochs=4,
        ending=".nii.gz",
    ),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.recipe} {way.ending}")
def test_learns_easy_shapes(way: Way, command, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(way.dataset)

    outcome = command("check", dataset, "--num-workers", 0)
    assert (outcome.code, outcome.after_start) == (0, "")

    plan, model = tmp_path / "plan.json", tmp_path / "model"
    words = ("--recipe", way.recipe, "-o", plan, "--num-workers", 0, *options(way.settings))
    outcome = command("plan", dataset, *words)
    assert (outcome.code, outcome.after_start) == (0, "")

    outcome = command(
        "train", plan, "-o", model, "--epochs", way.epochs, "--device", "cpu", "--num-workers", 0
    )
    assert outcome.code == 0, outcome.stderr
    assert "validation Dice" in outcome.stdout
    run = json.loads((model / "run.json").read_text())
    assert (run["status"], run["epochs_done"]) == ("finished", way.epochs)

    unseen, references = tmp_path / "unseen", tmp_path / "references"
    unseen.mkdir()
    references.mkdir()
    for case in run["validation_cases"]:
        shutil.copy(dataset / "imagesTr" / f"{case}_0000{way.ending}", unseen)
        shutil.copy(dataset / "labelsTr" / f"{case}{way.ending}", references)
    shutil.copy(dataset / "dataset.json", references)
    words = ("predict", model, unseen, "-o", tmp_path / "predictions", "--device", "cpu", "--probabilities")
    outcome = command(*words)
    assert outcome.code == 0, outcome.stderr

    report = tmp_path / "report.json"
    outcome = command("evaluate", tmp_path / "predictions", references, "-o", report, "--num-workers", 0)
    assert outcome.code == 0, outcome.stderr
    cases = json.loads(report.read_text())["cases"]
    assert sorted(case["case"] for case in cases) == sorted(run["validation_cases"])
    dice = [scores["dice"] for case in cases for scores in case["labels"].values()]
    assert min(dice) > 0.8  # measured: 0.89 and more
    if way.ending == ".nii.gz":
        assert_same_grid(next(references.glob("*.nii.gz")), tmp_path / "predictions")


WITHOUT_IMAGE_LIBRARIES = """
import sys
for name in ("SimpleITK", "PIL", "tifffile", "matplotlib"):
    sys.modules[name] = None
from scanseg.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_trains_from_a_store_where_there_are_no_images(volume_dataset: Path, tmp_path: Path) -> None:
    """Neither the data set nor the libraries that could read it."""
    import scanseg

    dataset = Path(shutil.copytree(volume_dataset, tmp_path / "dataset"))
    plan, store = tmp_path / "plan.json", tmp_path / "stores"
    settings = (*WAYS[-1].settings, "training.iterations_per_epoch=2", "training.validation_batches=1")
    made = scanseg.make_plan(dataset, settings=settings, num_workers=0)
    plan.write_text(made.to_json())
    scanseg.train(plan, tmp_path / "first", epochs=1, device="cpu", store=store, num_workers=0)
    shutil.rmtree(dataset)
    words = ("train", plan, "-o", tmp_path / "second", "--epochs", 1, "--device", "cpu", "--store", store)
    words += ("--num-workers", 0)
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_IMAGE_LIBRARIES, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "validation Dice" in process.stdout


def assert_same_grid(reference: Path, folder: Path) -> None:
    """Compare where another library says that the voxels lie."""
    ours, theirs = sitk.ReadImage(str(folder / reference.name)), sitk.ReadImage(str(reference))
    assert ours.GetSize() == theirs.GetSize()
    for ask in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, ask)(), getattr(theirs, ask)(), atol=1e-4)
