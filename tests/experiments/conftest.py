"""These tests cover cross-validations, comparisons, pairs of recipes, cascades, and choices made from their scores.

Their fixtures give small pictures with which a training takes a second.
"""

import pytest

from scanseg.experiments import job
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_folds

SETTINGS = (
    *SMALL_XLSTM_UNET_2D,
    *("training.epochs=3", "training.iterations_per_epoch=4", "training.validation_batches=1"),
    'training.optimizer={"kind": "adamw", "lr": 0.01}',
)


@pytest.fixture(autouse=True)
def _few_figures(plain_figures, monkeypatch):
    """Draw no curves of trainings, which `tests/training` covers, and other figures without a layout."""
    monkeypatch.setattr(job, "write_curves", lambda folder: None)


@pytest.fixture
def dataset(tmp_path):
    """Four pictures of a bright disk, in two folds."""
    folder = write_disks(tmp_path / "disks", numbers=range(4))
    write_folds(folder, ((0, 1), (2, 3)), ((2, 3), (0, 1)))
    return folder
