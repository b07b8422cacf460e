"""The recipes `msvm-unet-tuned` and those of pictures plan, train and predict."""

import json

import numpy as np
import pytest

import scanseg
from tests.factories import write_colour_disks, write_nested_boxes

SMALLEST = (
    *("sampling.patch_size=[32, 32]", "preprocessing.slice_size=[32, 32]", "sampling.batch_size=5"),
    *("network.dims=[4, 8, 12, 16]", "network.depths=[1, 1, 1, 1]", "network.decoder_depth=1"),
    *("training.epochs=1", "training.validation_batches=1"),
)


def test_msvm_unet_tuned_trains_with_deep_supervision_and_predicts(tmp_path):
    dataset = write_nested_boxes(tmp_path / "boxes", num_cases=3)
    result = scanseg.train(
        dataset,
        tmp_path / "model",
        recipe="msvm-unet-tuned",
        device="cpu",
        num_workers=0,
        settings=SMALLEST,
        progress=False,
    )
    assert json.loads((tmp_path / "model" / "run.json").read_text())["iterations_done"] == 2
    assert set(result.scores) == {"outer", "inner"}
    model = scanseg.load(tmp_path / "model", device="cpu")
    assert model.plan.network.deep_supervision
    assert model.plan.training.ema_decay == 0.999
    image = dataset / "imagesTr" / "case_0_0000.nii.gz"
    assert np.asarray(model.predict(image).label_map).shape == (5, 12, 10)


@pytest.mark.parametrize("recipe", ["plain-unet-fast", "msvm-unet-tuned"])
def test_colour_pictures_train_and_predict(tmp_path, recipe):
    dataset = write_colour_disks(tmp_path / "disks", num_cases=4)
    settings = SMALLEST if recipe.startswith("msvm") else ("training.iterations_per_epoch=2",)
    result = scanseg.train(
        dataset,
        tmp_path / "model",
        recipe=recipe,
        device="cpu",
        epochs=1,
        num_workers=0,
        settings=settings,
        progress=False,
    )
    assert result.epochs_done == 1
    model = scanseg.load(tmp_path / "model", device="cpu")
    assert any(each.kind == "colour" for each in model.plan.augmentation)
    image = sorted((dataset / "imagesTr").iterdir())[0]
    assert model.predict(image).label_map.ndim == 2
