"""The stages of predicting a folder."""

import json
import time

import numpy as np
import pytest
from PIL import Image

import scanseg
from benchmarks.prediction_stages import Stages, main, time_stages
from scanseg.inference import Predictor

SETTINGS = (
    *("sampling.patch_size=[16, 16]", "network.features=[4, 8]", "network.strides=[[1, 1], [2, 2]]"),
    *(
        "network.kernel_sizes=[[3, 3], [3, 3]]",
        "network.num_blocks_encoder=1",
        "network.num_blocks_decoder=1",
    ),
)


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (20, 20)).astype(np.uint8)
        Image.fromarray(picture).save(folder / "imagesTr" / f"case_{number}_0000.png")
        Image.fromarray((picture > 99).astype(np.uint8)).save(folder / "labelsTr" / f"case_{number}.png")
    description = {
        "channel_names": {"0": "gray"},
        "labels": {"background": 0, "bright": 1},
        "numTraining": 3,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_what_is_hidden_is_what_the_folder_took_less():
    assert Stages(3, preparing=4.0, segmenting=10.0, writing=2.0, folder=13.0).hidden == pytest.approx(0.5)


def test_a_plan_is_enough(dataset, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0).to_json())

    main([str(plan), str(dataset / "imagesTr"), "--device", "cpu", "-o", str(tmp_path / "record.json")])

    record = json.loads((tmp_path / "record.json").read_text())
    assert record["num_cases"] == 3
    assert min(record[name] for name in ("preparing", "segmenting", "writing", "folder")) > 0


def test_preparing_is_hidden_behind_a_device_that_works(dataset, tmp_path, monkeypatch):
    """Sleeping stands for a GPU at work, and for a slow disk."""
    model = tmp_path / "model"
    settings = (*SETTINGS, "training.epochs=1", "training.iterations_per_epoch=1", "sampling.batch_size=2")
    scanseg.train(dataset, model, settings=settings, device="cpu", num_workers=0, fold="all")
    prepare, predict = Predictor.prepare, Predictor.predict_prepared

    def slowly(function):
        def call(self, *arguments, **options):
            time.sleep(0.4)
            return function(self, *arguments, **options)

        return call

    monkeypatch.setattr(Predictor, "prepare", slowly(prepare))
    monkeypatch.setattr(Predictor, "predict_prepared", slowly(predict))

    stages = time_stages(scanseg.load(model, device="cpu"), dataset / "imagesTr")

    # Of three cases the first is waited for.
    assert stages.hidden > 0.3
    assert stages.folder < stages.preparing + stages.segmenting
