"""The timing of a first step."""

import json

import numpy as np
import pytest
from PIL import Image

import scanseg
from benchmarks.first_step import describe, faults, main
from scanseg.dataset.raw import open_dataset
from scanseg.preprocessing.store_building import build_store
from scanseg.runtime import RunContext
from scanseg.specs import Splits

SETTINGS = (
    *("sampling.patch_size=[16, 16]", "sampling.batch_size=2", "network.features=[4, 8]", "augmentation=[]"),
    *("network.strides=[[1, 1], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3]]"),
    *("network.num_blocks_encoder=1", "network.num_blocks_decoder=1"),
)


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


def test_a_line_says_how_kernels_were_compiled():
    assert describe(run_of()).startswith("at first launch, empty cache: step 1 12.50 s")
    assert "3.00 GiB" in describe(run_of())
    assert describe(run_of(num_threads=8, peak_reserved_bytes=None)).startswith("8 threads ahead")


@pytest.fixture
def plan(tmp_path):
    """File of a plan; its store lies beside it."""
    dataset = tmp_path / "noise"
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        for folder, largest, ending in (("imagesTr", 255, "_0000"), ("labelsTr", 1, "")):
            pixels = rng.integers(0, largest, (24, 24), dtype=np.uint8, endpoint=True)
            Image.fromarray(pixels).save(dataset / folder / f"case_{number}{ending}.png")
    labels = {"background": 0, "bright": 1}
    description = {"channel_names": {"0": "gray"}, "labels": labels, "numTraining": 2, "file_ending": ".png"}
    (dataset / "dataset.json").write_text(json.dumps(description))
    made = scanseg.make_plan(dataset, settings=SETTINGS, num_workers=0)
    build_store(
        open_dataset(dataset),
        preprocessing=made.preprocessing,
        splits=Splits(source="none", folds=()),
        folder=tmp_path / "store",
        context=RunContext(num_workers=0),
    )
    (tmp_path / "plan.json").write_text(made.to_json())
    return tmp_path / "plan.json"


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
