"""These tests cover the command line from a raw data set to scores, with faulty inputs and interruptions.

Their fixtures give small data sets with easy shapes.
"""

from pathlib import Path

import pytest

from tests.factories import write_balls_and_boxes, write_colour_disks


@pytest.fixture(autouse=True)
def _plain_figures(plain_figures):
    """Draw curves without a layout."""


@pytest.fixture(scope="session")
def raster_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten RGB pictures (PNG), one label. Tests do not change them."""
    folder = tmp_path_factory.mktemp("raster") / "disks"
    return write_colour_disks(folder, num_cases=10)


@pytest.fixture(scope="session")
def volume_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes (NIfTI), two labels. Tests do not change them."""
    folder = tmp_path_factory.mktemp("volume") / "bodies"
    return write_balls_and_boxes(folder, num_cases=5)
