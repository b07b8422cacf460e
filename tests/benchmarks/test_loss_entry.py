"""The entry of the loss passes its check, and times the loss and its earlier form."""

import time

import torch

from benchmarks.loss_entry import loss_entry
from benchmarks.running import Runner


def test_the_loss_passes_its_check_and_runs():
    entry = loss_entry()
    runner = Runner(torch.device("cpu"), device_name="x", seconds=0.0, end=time.monotonic() + 1e4, tiny=True)
    rows = runner.run(entry)
    assert entry.name == "loss/2x14x48x160x224/bfloat16"
    assert [row["call"] for row in rows] == ["forward", "forward+backward", "forward+backward-pytorch"]
    assert [row["status"] for row in rows] == ["measured"] * 3, rows
    errors, bounds = rows[0]["check"]["errors"], rows[0]["check"]["bounds"]
    assert errors.keys() == bounds.keys() == {"output", "d logits"}
    assert all(0 <= errors[name] <= bounds[name] for name in errors)
