"""The stages of predicting a folder."""

import json
import time

import numpy as np
import pytest

import scanseg
from benchmarks.prediction_stages import Stages, main, time_stages
from scanseg.inference import Predictor
from tests.factories import SMALL_XLSTM_UNET_2D, write_dataset


@pytest.fixture
def dataset(tmp_path):
    pictures = [
        np.random.default_rng(number).integers(0, 255, (20, 20)).astype(np.uint8) for number in range(3)
    ]
    cases = {f"case_{number}": (picture, picture > 99) for number, picture in enumerate(pictures)}
    return write_dataset(tmp_path / "pictures", cases, labels={"background": 0, "bright": 1})


def test_hidden_time_is_the_time_that_the_folder_saved():
    assert Stages(3, preparing=4.0, segmenting=10.0, writing=2.0, folder=13.0).hidden == pytest.approx(0.5)


def test_a_plan_is_enough(dataset, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(scanseg.make_plan(dataset, settings=SMALL_XLSTM_UNET_2D, num_workers=0).to_json())

    main([str(plan), str(dataset / "imagesTr"), "--device", "cpu", "-o", str(tmp_path / "record.json")])

    record = json.loads((tmp_path / "record.json").read_text())
    assert record["num_cases"] == 3
    assert min(record[name] for name in ("preparing", "segmenting", "writing", "folder")) > 0


def test_preparing_is_hidden_behind_a_device_that_works(dataset, tmp_path, monkeypatch):
    """Sleeping stands for a GPU at work, and for a slow disk."""
    model = tmp_path / "model"
    settings = (*SMALL_XLSTM_UNET_2D, "training.epochs=1", "training.iterations_per_epoch=1")
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
