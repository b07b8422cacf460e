"""The timing of a first step."""

import json

import numpy as np
import pytest

import scanseg
from benchmarks.first_step import describe, faults, main
from scanseg.specs import Splits
from tests.factories import SMALL_XLSTM_UNET_2D, write_dataset, write_store


def run_of(**fields):
    return {
        "num_threads": 0,
        "cache": "empty",
        "first_step_seconds": 12.5,
        "validation_seconds": 0.5,
        "second_step_seconds": 0.1,
        "num_kernels_ahead": 0,
        "num_kernels_at_launch": 40,
        "loss": 1.0,
        "peak_reserved_bytes": 3 * 2**30,
        **fields,
    }


def test_steps_that_agree_are_no_fault():
    ahead = run_of(num_threads=8, num_kernels_ahead=40, num_kernels_at_launch=0, loss=1.001)
    assert faults([run_of(), ahead]) == []


def test_kernels_compiled_late_and_losses_that_differ_are_faults():
    assert "2" in faults([run_of(num_threads=8, num_kernels_at_launch=2)])[0]
    assert "differs by more than 0.02" in faults([run_of(), run_of(loss=1.1)])[0]
    assert "not finite" in faults([run_of(loss=float("nan"))])[0]


def test_a_line_states_how_kernels_were_compiled():
    assert describe(run_of()).startswith("at first launch, empty cache: step 1 12.50 s")
    assert "3.00 GiB" in describe(run_of())
    assert describe(run_of(num_threads=8, peak_reserved_bytes=None)).startswith("8 threads ahead")


@pytest.fixture
def plan(tmp_path):
    """Return the file of a plan, with its store beside it."""
    rng = np.random.default_rng(0)

    def draw(largest):
        return rng.integers(0, largest, (24, 24), dtype=np.uint8, endpoint=True)

    cases = {f"case_{number}": (draw(255), draw(1)) for number in range(2)}
    dataset = write_dataset(tmp_path / "noise", cases, labels={"background": 0, "bright": 1})
    made = scanseg.make_plan(dataset, settings=SMALL_XLSTM_UNET_2D, num_workers=0)
    steps = dict(made.preprocessing)
    write_store(dataset, tmp_path / "store", splits=Splits(source="none", folds=()), **steps)
    (tmp_path / "plan.json").write_text(made.to_json())
    return tmp_path / "plan.json"


@pytest.mark.slow
def test_a_step_is_taken_in_each_way(plan, tmp_path, capsys):
    """On a CPU, where nothing is compiled."""
    output = tmp_path / "record.json"
    words = [plan, tmp_path / "store", "--device", "cpu", "--threads", "2", "-o", output, "--commit", "none"]
    assert main([str(word) for word in words]) == 0

    record = json.loads(output.read_text())
    ways = [(run["num_threads"], run["cache"]) for run in record["runs"]]
    assert ways == [(0, "empty"), (0, "filled"), (2, "empty"), (2, "filled")]
    assert len({run["loss"] for run in record["runs"]}) == 1
    assert all(run["num_kernels_ahead"] == run["num_kernels_at_launch"] == 0 for run in record["runs"])
    assert capsys.readouterr().out.count("step 1 ") == 4
