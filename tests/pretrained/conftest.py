"""These tests cover shared models: cards, names, archives and addresses."""

import json
from datetime import UTC, datetime

import pytest

from scanseg.models import ModelFolder
from scanseg.pretrained import names
from scanseg.specs import ExportedWeights, RunRecord, TrainingSession, TrainingSetup
from tests.factories import make_plan


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of fetched models."""
    monkeypatch.setattr(names, "fetched_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path):
    """Folder of a trained model, whose records name cases, paths and a host."""
    plan = make_plan().model_copy(update={"dataset_path": "/home/ada/secret-data"})
    folder = ModelFolder.create(tmp_path / "discs", plan, TrainingSetup(fold=0, initial_weights=None))
    folder.write_weights(folder.build_network().state_dict())
    session = TrainingSession(
        command=("scanseg", "train", "/home/ada/secret-data"),
        started=datetime(2026, 11, 30, tzinfo=UTC).isoformat(),
        host="ada-laptop",
        device="cpu",
        precision="float32",
        versions={"scanseg": "0.1.0", "torch": "2.13.0", "platform": "Linux-ada"},
    )
    record = RunRecord(
        status="finished",
        fold=0,
        train_cases=("patient_smith", "patient_jones"),
        validation_cases=("patient_doe",),
        sessions=(session,),
        epochs_done=2,
        iterations_done=500,
        training_seconds=90.0,
        num_parameters=10,
        exported=ExportedWeights(checkpoint="best", iterations=500, ema=False, patch_dice=0.5),
    )
    folder.write_run(record)
    return folder.path


@pytest.fixture
def text_of_files():
    """Function that returns the text of all documents in a folder."""

    def read(folder):
        return "".join(
            path.read_text() for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".md")
        )

    return read


def as_json(path):
    return json.loads(path.read_text())
