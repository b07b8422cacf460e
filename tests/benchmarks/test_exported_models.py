"""The comparison of exported models, and its table in the docs."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.exported_models import RUNTIMES, main, make_table
from tests.factories import write_picture
from tests.interop.conftest import plan_of, write_model

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks/results/exported-cpu-2026-11-30.json"


def test_the_page_has_the_table_of_the_record():
    assert make_table(json.loads(RECORD.read_text())) in (ROOT / "docs/onnx.md").read_text()


def test_sizes_times_label_maps_and_dice_are_recorded(tmp_path, rng, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = write_model(tmp_path / "model", plan_of("plain-2d"))
    for number in range(2):
        write_picture(tmp_path / "images" / f"case_{number}.png", 255 * rng.random((20, 22)))
        write_picture(tmp_path / "labels" / f"case_{number}.png", rng.integers(0, 3, (20, 22)))
    subject = f"{model}={tmp_path / 'images'}={tmp_path / 'labels'}"
    (tmp_path / "labels" / "dataset.json").write_text(plan_of("plain-2d").dataset.to_json())

    assert main([subject, "--threads", "1", "--repeats", "3", "-o", str(tmp_path / "record.json")]) == 0

    record = json.loads((tmp_path / "record.json").read_text())
    rows = record["models"][0]["runtimes"]
    assert tuple(rows) == RUNTIMES
    assert rows["torch"]["different_voxels"] == 0
    assert rows["onnxruntime"]["different_voxels"] <= 1
    assert all(row["seconds_per_window"] > 0 for row in rows.values())
    assert np.isclose(rows["openvino"]["dice"], rows["torch"]["dice"], atol=1e-3)
    assert len(record["load_before"]) == len(record["load_after"]) == 3
