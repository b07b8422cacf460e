import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory_prediction import BAR, ROWS, fit_constants, predict_again
from scanseg.planning.memory import OUTPUT_BYTES, Counts, count_values, step_memory
from scanseg.settings import apply_settings

RECORD = Path(__file__).parents[2] / "benchmarks/results/memory-h200-2026-11-29.json"
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]


def record_row(kind, maps, outputs, *, map_bytes, work_gib):
    measured = 100.0 - 30.0 + 2 * (map_bytes * maps + OUTPUT_BYTES * outputs)
    return {
        "kind": kind,
        "width": 16,
        "measured_gib": measured / 2**30 + work_gib,
        "weights_bytes": 100.0,
        "spared_bytes": 30.0,
        "batch_size": 2,
        "counts": {"map_values": maps, "output_values": outputs},
    }


def test_constants_are_found_again():
    sizes = ((1e9, 1e7), (2e9, 5e7), (5e8, 1e7))
    rows = [
        record_row(kind, *size, map_bytes=map_bytes, work_gib=1.5)
        for kind, map_bytes in (("plain-unet", 3.5), ("xlstm-unet", 4.25))
        for size in sizes
    ]
    (line,) = fit_constants(rows)
    assert "16 bits, 6 rows: workspace 1.50 GiB" in line
    assert "plain-unet 3.50, xlstm-unet 4.25, errors" in line


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['recipe']}-{row['dataset']}-{row['width']}")
def test_predictions_are_near_the_measurements(row):
    again = predict_again(row)
    assert abs(again["error"]) <= BAR
    assert again["error"] == pytest.approx(row["error"])  # --again writes this into the record


@pytest.mark.parametrize("recipe", ["xlstm-unet", "msvm-unet"])
def test_counts_equal_those_of_the_record(recipe):
    row = next(row for row in RECORDED if row["recipe"] == recipe and row["dataset"] == "abdomen")
    dataset = next(dataset for _, dataset, _ in ROWS if dataset.name == "abdomen")
    counted = count_values(apply_settings(dataset.plan(recipe), ("training.precision=auto",)))
    recorded = Counts(**{**row["counts"], "spared_values": tuple(row["counts"]["spared_values"])})
    # Factors of stochastic depth, one for each branch and sample, count as maps. The record has no scans and cells.
    assert counted.map_values == pytest.approx(recorded.map_values, rel=1e-5)
    assert replace(counted, map_values=recorded.map_values, scans=(), cells=()) == recorded


@pytest.mark.parametrize(("recipe", "dataset", "precision"), ROWS[:3])
def test_rows_have_plans_and_predictions(recipe, dataset, precision):
    plan = dataset.plan(recipe)
    predicted = step_memory(plan, counts=Counts(10**7, 10**9, 10**6))
    assert 1e9 < predicted.total_bytes < 1e12
    assert precision == "auto"
