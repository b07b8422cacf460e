import pytest

from benchmarks.memory_prediction import ROWS, fit_constants
from scanseg.planning.memory import OUTPUT_BYTES, Counts, step_memory


def record_row(maps, outputs, *, map_bytes, output_bytes):
    measured = 100.0 - 30.0 + 2 * (map_bytes * maps + output_bytes * outputs)
    return {
        "kind": "plain-unet",
        "width": 16,
        "measured_gib": measured / 2**30,
        "weights_bytes": 100.0,
        "spared_bytes": 30.0,
        "batch_size": 2,
        "counts": {"map_values": maps, "output_values": outputs},
    }


def test_constants_are_found_again():
    sizes = ((1e9, 1e7), (2e9, 5e7), (5e8, 1e7))
    rows = [record_row(*size, map_bytes=3.5, output_bytes=20.0) for size in sizes]
    both, maps_alone = fit_constants(rows)
    assert "3 rows, maps and outputs: 3.500 and 20.00 bytes" in both
    assert f"and {OUTPUT_BYTES:.2f} bytes" in maps_alone


@pytest.mark.parametrize(("recipe", "dataset", "precision"), ROWS[:3])
def test_rows_have_plans_and_predictions(recipe, dataset, precision):
    plan = dataset.plan(recipe)
    predicted = step_memory(plan, counts=Counts(10**7, 10**9, 10**6))
    assert 1e9 < predicted.total_bytes < 1e12
    assert precision == "auto"
