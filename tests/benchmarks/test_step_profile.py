"""The profile of training steps, without a GPU."""

import pytest

from benchmarks.step_profile import main, union_seconds


def test_times_that_overlap_count_once():
    assert union_seconds([(1, 3), (0, 2), (10, 11), (10.2, 10.5)]) == pytest.approx(4e-6)
    assert union_seconds([]) == 0


def test_it_is_refused_without_a_gpu(capsys, tmp_path):
    assert main(["plan.json", "store", "-o", str(tmp_path / "p.json"), "--device", "cpu"]) == 2
    assert "expected a GPU with CUDA to profile kernels, got cpu" in capsys.readouterr().err
