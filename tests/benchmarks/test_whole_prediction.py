"""The timing of whole predictions."""

import json
import sys

import pytest

from benchmarks.compare import main as compare
from benchmarks.page import make_page
from benchmarks.whole_prediction import main


@pytest.mark.skipif(sys.platform == "win32", reason="the usage of a process is read as on POSIX systems")
def test_a_prediction_is_timed_from_the_start_of_its_process(tmp_path, capsys, torch_threads):
    output = tmp_path / "record.json"
    words = ["--recipes", "xlstm-unet-fast", "--repetitions", "1", "-o", str(output), "--commit", "none"]
    assert main(words) == 0
    (row,) = json.loads(output.read_text())["rows"]
    assert row["entry"] == "whole-prediction/1x36x50x35/xlstm-unet-fast"
    assert row["eager"]["num_calls"] == 1
    assert 300 < row["eager"]["median_ms"] < 1e5
    assert row["cpu_seconds"] > 0.3
    assert 0.1 < row["eager"]["peak_gib"] < 10
    assert len(row["settings"]["load"]) == 3
    page = make_page([output], page=tmp_path / "performance.md")
    assert (
        "| whole-prediction/1x36x50x35/xlstm-unet-fast process |" in page.split("## CPU")[1].split("\n## ")[0]
    )
    assert compare([str(output), str(output)]) == 0
