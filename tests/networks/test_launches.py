"""Numbers of kernel launches of MSVM-UNet, which take the host longer than most kernels take the GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

MOST = {"forward": 370, "backward": 610, "inference": 335}
"""Before parameters were converted at once, they were 584, 758 and 482."""


@pytest.fixture(scope="module")
def launches():
    """Return the launches of each pass on a simulated GPU, by the name of the kernel or operator."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = Path(__file__).with_name("imagined_launches.py")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", program],
        env=environment | {"OMP_NUM_THREADS": "1"},
        timeout=280,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_launches_stay_few(launches):
    totals = {name: sum(counts.values()) for name, counts in launches.items()}
    assert {name: total for name, total in totals.items() if total > MOST[name]} == {}


def test_parameters_are_converted_by_one_launch(launches):
    for name in ("forward", "inference"):
        assert launches[name]["convert_weights"] == 1
        assert not {"_foreach_copy_", "prepare_parameters", "new_zeros"} & set(launches[name])


def test_each_branch_sums_its_partial_gradients_by_one_launch(launches):
    assert launches["backward"]["sum_parts"] == 2 * 20  # two branches of 20 blocks


def test_the_draws_of_encoder_and_decoder_are_one_each(launches):
    assert launches["forward"]["rand"] == 2
    assert "rand" not in launches["inference"]
