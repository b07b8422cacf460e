"""Growth with the number of tokens: the published form that is drawn beside ours, a record, and the figure."""

import json

import pytest
import torch

from benchmarks import growth
from benchmarks.growth import MAP_SIZES, published_mlstm
from benchmarks.growth_figure import draw_growth, save_figure
from benchmarks.operator_entries import CellShape, cell_inputs
from scanseg.ops.mlstm import mlstm


def test_maps_have_the_pixels_they_are_named_by():
    assert list(MAP_SIZES) == [2**bits for bits in range(10, 18)]
    assert all(height * width == tokens for tokens, (height, width) in MAP_SIZES.items())


def test_the_published_form_is_the_recurrence():
    inputs = cell_inputs(CellShape(1, 2, 50, 8), torch.float32, torch.device("cpu"))
    torch.testing.assert_close(
        published_mlstm(inputs), mlstm(**inputs, backend="reference"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_a_record_and_its_picture(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "MAP_SIZES", {64: (8, 8), 128: (8, 16)})
    record, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    assert growth.main(["--device", "cpu", "--seconds", "0", "-o", str(record)]) == 0
    rows = json.loads(record.read_text())["rows"]
    series = {(row["operator"], row["backend"]) for row in rows}
    assert {("mlstm", "chunked"), ("mlstm", "published quadratic form"), ("ss2d", "chunked")} <= series
    assert all(row["status"] == "measured" and row["median_ms"] > 0 for row in rows)
    assert len(rows) == 2 * len(series)

    assert growth.main(["--draw", str(record), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_entry_that_fails_its_check_is_not_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "MAP_SIZES", {64: (8, 8)})
    monkeypatch.setattr(growth, "published_mlstm", lambda inputs: 1.01 * published_mlstm(inputs))
    record = tmp_path / "growth.json"
    assert growth.main(["--device", "cpu", "--seconds", "0", "-o", str(record)]) == 1
    failed = [row for row in json.loads(record.read_text())["rows"] if row["status"] == "check failed"]
    assert [row["backend"] for row in failed] == ["published quadratic form"]
    assert "median_ms" not in failed[0]


def test_a_series_ends_where_its_time_does(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "MAP_SIZES", {64: (8, 8), 128: (8, 16)})
    record = tmp_path / "growth.json"
    arguments = ["--device", "cpu", "--seconds", "0", "--max-call-seconds", "0", "-o", str(record)]
    assert growth.main(arguments) == 0
    assert {row["tokens"] for row in json.loads(record.read_text())["rows"]} == {64}


def test_axes_carry_quantity_and_unit():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    points = {"triton": [(1024, 1.0), (2048, 2.0)], "chunked": [(1024, 4.0)]}
    draw_growth(axes, points, title="mlstm", quantity="time (ms)", slope_from=1.0)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("tokens", "time (ms)", "mlstm")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["triton", "chunked", "linear"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1k", "2k"]
    dotted = axes.get_lines()[-1]
    assert list(dotted.get_ydata()) == [1.0, 2.0]


@pytest.mark.parametrize("peak", [None, 0.5])
def test_memory_is_drawn_where_it_is_known(tmp_path, peak):
    rows = [
        {
            "operator": "mlstm",
            "backend": "triton",
            "tokens": n,
            "status": "measured",
            "median_ms": n,
            "peak_gib": peak,
        }
        for n in (1024, 2048)
    ]
    record = {"device": "a GPU", "versions": {"torch": "2.11"}, "rows": rows}
    save_figure(record, tmp_path / "one.png")
    height = int.from_bytes((tmp_path / "one.png").read_bytes()[20:24])
    assert height == round(150 * 3.6 * (1 if peak is None else 2))
