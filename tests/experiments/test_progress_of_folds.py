"""What is told of folds that are trained at the same time."""

import re

import pytest

import scanseg
from scanseg.experiments import scheduler

from .conftest import SETTINGS


@pytest.mark.slow
def test_each_fold_that_runs_is_told_of(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "_REPORT_SECONDS", 0.0)
    settings = (
        *SETTINGS,
        "training.epochs=40",
        "training.validate_every=1",
        "training.checkpoint_seconds=999",
    )
    heard = []

    options = {"settings": settings, "num_workers": 0, "devices": ["cpu", "cpu"], "progress": heard.append}
    scanseg.cross_validate(dataset, tmp_path / "study", **options)

    said = [
        (progress.done, progress.total, progress.detail) for progress in heard if progress.task == "folds"
    ]
    assert said[0] == (0, 2, "")
    told = r"xlstm-unet fold {}: epoch \d+/40, loss \d\.\d{{3}}, patch Dice [01]\.\d{{3}}"
    both = re.compile("; ".join(told.format(fold) for fold in (0, 1)))
    assert any(both.fullmatch(detail) for done, _, detail in said if not done)
    assert re.fullmatch(r"xlstm-unet fold \d: validating case_\d", said[-1][2])
    assert said[-1][:2] == (2, 2)
