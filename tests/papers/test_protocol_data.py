"""Cases of a protocol: what trains, validates and is scored."""

import numpy as np
import pytest

from scanseg.converters import convert_dataset, find_dataset
from scanseg.papers.data import divide, few_cases
from scanseg.runtime import RunContext
from tests.factories import write_picture


@pytest.fixture
def polyps(tmp_path):
    """Eighty pictures, of which a tenth tests."""
    inside = np.zeros((8, 8), np.uint8)
    inside[2:5, 2:5] = 255
    for number in range(80):
        write_picture(tmp_path / "source" / "images" / f"{number}.png", np.repeat(inside[..., None], 3, 2))
        write_picture(tmp_path / "source" / "masks" / f"{number}.png", inside)
    convert_dataset(
        find_dataset("kvasir-seg"), tmp_path / "source", tmp_path / "data", context=RunContext(num_workers=0)
    )
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("paper", "protocol", "counts"),
    [
        ("xlstm-unet", "published", (72, 0)),
        ("xlstm-unet", "held-out", (57, 15)),
        ("msvm-unet", "published", (72, 8)),
        ("msvm-unet", "held-out", (57, 15)),
    ],
)
def test_division_and_a_few_of_it(polyps, paper, protocol, counts):
    whole = divide(polyps, paper=paper, protocol=protocol)
    assert (len(whole.fold.train), len(whole.fold.validation)) == counts
    assert len(whole.scored) == 8
    assert not set(whole.fold.train) & set(whole.scored)
    assert whole.chosen_on_scored == ((paper, protocol) == ("msvm-unet", "published"))

    few = few_cases(whole)
    assert few.fold.train == whole.fold.train[:8]
    assert few.scored == whole.scored[:6]
    assert few.description == "the first 6 of 8 test cases"
    assert few.fold.validation == (few.scored if whole.chosen_on_scored else whole.fold.validation[:4])
    assert {case.name for case in few.dataset.cases} == {
        *few.fold.train,
        *few.fold.validation,
        *few.scored,
    }
