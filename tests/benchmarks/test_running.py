"""The benchmark program checks before it measures, and continues after a failed entry."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import run as program
from benchmarks import running
from benchmarks.entries import Entry, TimedCall, UnavailableError, Workload
from benchmarks.gates import GateReport
from benchmarks.operator_entries import ss2d_core
from benchmarks.rows import PUBLISHED
from benchmarks.running import Runner
from benchmarks.table import all_entries
from scanseg.layers.ss2d import SS2D

CPU = torch.device("cpu")
PASSED = GateReport({"output": 0.0}, {"output": 1.0})
FAILED = GateReport({"output": float("nan")}, {"output": 1.0})


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch):
    """Keep the garbage of the entries, which is small here. Each collection takes a tenth of a second or more."""
    monkeypatch.setattr(running, "gc", SimpleNamespace(collect=lambda: 0))


def make_runner(**changes):
    arguments = {"device_name": "x", "seconds": 0.0, "end": time.monotonic() + 1e4, "tiny": True}
    return Runner(CPU, **(arguments | changes))


def make_entry(name="a/b/float32", call=lambda: time.sleep(1e-3), *, report=PASSED):
    def check(device, tiny):
        return report

    return Entry(
        name, "float32", "cpu", lambda device, tiny: Workload({"forward": TimedCall(call)}), check, name
    )


def raising(error):
    def call():
        raise error

    return call


def names():
    return [entry.name for entry in all_entries()]


def test_names_are_unique():
    assert len(set(names())) == len(names())


def test_every_published_row_and_target_has_an_entry():
    rows = json.loads(PUBLISHED.read_text())["rows"]
    assert {row["entry"] for row in rows} <= set(names())
    known = {"forward", "forward+backward", "forward-chunked", "step", "inference", "inference-batch-1"}
    assert {row["call"] for row in rows} <= known


@pytest.mark.parametrize(
    "name",
    [
        "ss2d-core/S1/bfloat16",
        "ss2d-core/S4/tf32",
        "mlstm/2x4x6720x128/bfloat16",
        "mlstm/32x4x196x96/tf32",
        "ss2d-scan/96x56x56/float32",
        "mlstm/1x4x4096x64/float32",
        "msvm-unet/32x3x224x224/tf32",
        "xlstm-unet-enc/2x3x384x640/bfloat16",
        "xlstm-unet-bot/2x1x48x160x224/bfloat16",
        "plain-unet/2x1x48x160x224/bfloat16",
        # It compiles for the CPU, which takes 13 s.
        pytest.param("msvm-unet/32x3x224x224/bfloat16/compiled", marks=pytest.mark.slow),
    ],
)
def test_entries_pass_their_checks_and_run(name):
    (entry,) = [entry for entry in all_entries() if entry.name == name]
    rows = make_runner().run(entry)
    assert [row["status"] for row in rows] == ["measured"] * len(rows), rows
    assert all(row["eager"]["median_ms"] > 0 for row in rows)
    errors, bounds = rows[0]["check"]["errors"], rows[0]["check"]["bounds"]
    assert errors.keys() == bounds.keys()
    assert len(errors) >= 2
    assert all(0 <= errors[name] <= bounds[name] for name in errors)


@pytest.mark.parametrize(
    "name", ["nnunet-plain-conv-unet/2x1x48x160x224/bfloat16", "monai-segresnet/32x3x224x224/bfloat16"]
)
def test_installed_baselines_run(name):
    (entry,) = (entry for entry in all_entries() if entry.name == name)
    rows = make_runner().run(entry)
    if rows[0]["status"] == "skipped":
        assert "pip install" in rows[0]["reason"]
        pytest.skip(rows[0]["reason"])
    assert {row["call"] for row in rows} == {"step", "inference"}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_timed_core_equals_the_layer(device, generator):
    layer = SS2D(16).to(device)
    kernel = torch.zeros_like(layer.conv.weight)
    kernel[:, :, 1, 1] = 1
    with torch.no_grad():
        layer.conv.weight.copy_(kernel)
        for projection in (layer.in_proj, layer.out_proj):
            projection.weight.copy_(torch.eye(16).view_as(projection.weight))
    x = torch.randn(2, 16, 5, 7, generator=generator).to(device)
    torch.testing.assert_close(ss2d_core(layer, torch.nn.functional.silu(x)), layer(x), atol=2e-3, rtol=2e-3)


def test_an_entry_that_fails_its_check_is_not_timed():
    calls = []
    (row,) = make_runner().run(make_entry(call=lambda: calls.append(1), report=FAILED))
    assert row["status"] == "check failed"
    assert "nan" in row["reason"]
    assert "eager" not in row
    assert calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("pip install it"), "skipped"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (ValueError("a bug"), "failed"),
    ],
)
def test_a_run_continues_after_a_failed_entry(monkeypatch, tmp_path, error, status):
    entries = [make_entry("first", raising(error)), make_entry("second")]
    monkeypatch.setattr(program, "all_entries", lambda: entries)
    output = tmp_path / "record.json"
    assert program.main(["--device", "cpu", "--quick", "-o", str(output)]) == 0
    first, second = json.loads(output.read_text())["rows"]
    assert first["status"] == status
    assert str(error) in first["reason"]
    assert second["status"] == "measured"


def test_a_failed_check_makes_the_run_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "all_entries", lambda: [make_entry(report=FAILED)])
    assert program.main(["--device", "cpu", "--quick", "-o", str(tmp_path / "record.json")]) == 1


def test_entries_with_one_key_share_a_check():
    checks = []

    def check(device, tiny):
        checks.append(1)
        return PASSED

    runner = make_runner()
    for name in ("a/x/float32", "b/x/float32"):
        runner.run(replace(make_entry(name), check=check, check_key="same"))
    assert checks == [1]


def test_no_entry_begins_after_the_time_limit():
    (row,) = make_runner(end=time.monotonic() - 1).run(make_entry())
    assert row["status"] == "not run"


def test_a_record_describes_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(
        program, "all_entries", lambda: [make_entry("a/b/float32"), make_entry("c/d/float32")]
    )
    output = tmp_path / "record.json"
    assert (
        program.main(["--device", "cpu", "--quick", "-o", str(output), "--entries", "a/*", "--commit", "abc"])
        == 0
    )
    record = json.loads(output.read_text())
    assert [row["entry"] for row in record["rows"]] == ["a/b/float32"]
    assert record["commit"] == "abc"
    assert record["date"].endswith("+00:00")
    assert record["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert len(record["source_digest"]) == 16
    assert record["settings"]["quick"] is True

    assert program.main(["--device", "cpu", "--quick", "-o", str(output), "--append"]) == 0
    assert [row["entry"] for row in json.loads(output.read_text())["rows"]] == ["a/b/float32", "c/d/float32"]


def test_nothing_is_timed_if_a_golden_record_differs(monkeypatch, tmp_path):
    class Differs:
        passed, output_difference, gradient_difference = False, 1.0, 1.0

    (tmp_path / "one.safetensors").touch()
    monkeypatch.setattr(program, "verify_record", lambda path, **_: Differs())
    monkeypatch.setattr(program, "all_entries", lambda: [make_entry()])
    output = tmp_path / "record.json"
    assert program.main(["--device", "cpu", "-o", str(output), "--golden", str(tmp_path)]) == 1
    record = json.loads(output.read_text())
    assert record["rows"] == []
    assert record["golden"][0]["record"] == "one.safetensors"


@pytest.mark.gpu
def test_a_call_is_replayed_on_a_gpu():
    entry = next(entry for entry in all_entries() if entry.name == "ss2d-core/S1/bfloat16")
    rows = Runner(
        torch.device("cuda"), torch.cuda.get_device_name(), seconds=0.0, end=time.monotonic() + 1e4, tiny=True
    ).run(entry)
    assert [row["status"] for row in rows] == ["measured", "measured"]
    assert all(row["replay"]["median_ms"] > 0 for row in rows)
