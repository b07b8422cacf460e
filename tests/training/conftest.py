"""These tests cover training: losses, steps, checkpoints and resuming, options of a plan, processes, records.

Their fixtures give a data set and a plan with which a training takes a second.
"""

import pytest

import scanseg
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks

SETTINGS = (
    *SMALL_XLSTM_UNET_2D,
    *("training.epochs=2", "training.iterations_per_epoch=2", "training.validation_batches=1"),
)


@pytest.fixture(autouse=True)
def _plain_figures(plain_figures):
    """Draw curves without a layout."""


@pytest.fixture
def dataset(tmp_path):
    """Five pictures, which a test may change."""
    return write_disks(tmp_path / "disks")


@pytest.fixture
def plan(dataset, tmp_path):
    """File of a plan of two epochs of two iterations."""
    made = scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0)
    path = tmp_path / "plan.json"
    path.write_text(made.to_json())
    return path


@pytest.fixture
def train(plan, tmp_path):
    """Train the plan, or go on, in `tmp_path / "model"`."""

    def run(**options):
        given = {"device": "cpu", "num_workers": 0, **options}
        return scanseg.train(plan, tmp_path / "model", **given)

    return run
