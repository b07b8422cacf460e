"""Texts of `scanseg info` that depend on the machine."""

import importlib
import json

import pytest

from scanseg.cli.info import _describe_cudnn
from scanseg.ops import KernelCheck, KernelVerdict


@pytest.mark.parametrize(
    ("version", "cuda", "text"),
    [
        (None, None, ""),
        (91900, "13.0", ", cuDNN 9.19.0"),
        (91500, "13.0", ", cuDNN 9.15.0"),
        (
            91002,
            "12.8",
            ", cuDNN 9.10.2 (3D convolutions in 16 bits may be up to four times slower than with 9.15. "
            'Upgrade it: pip install "nvidia-cudnn-cu12>=9.15")',
        ),
    ],
)
def test_a_slow_cudnn_is_reported_with_the_line_that_replaces_it(version, cuda, text):
    assert _describe_cudnn(version, cuda=cuda) == text


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (1e-6, 0, "correct (error 1e-06)"),
        (0.5, 1, "not used: their results are wrong (relative error 0.5, expected at most 0.001)"),
        (float("nan"), 1, "not used: their results are not numbers"),
    ],
)
def test_verify_reports_each_operator(command, monkeypatch, error, code, text):
    check = KernelCheck("mlstm", "float32", error, 1e-3)
    row = {"device": "cuda:0", **check._asdict(), "fault": check.fault}
    module = importlib.import_module("scanseg.cli.info")
    monkeypatch.setattr(module, "check_kernels", lambda: [row | {"passed": error < 1e-3}])
    shown = command("info", "--verify")
    assert shown.code == code
    assert text in " ".join(shown.stdout.split())
    assert json.loads(command("info", "--verify", "--json").stdout)["kernels"][0]["operator"] == "mlstm"
    assert "kernels" not in json.loads(command("info", "--json").stdout)


def test_programs_can_read_every_capability(command):
    facts = json.loads(command("info", "--json").stdout)
    assert ".jpg" in facts["formats"]["read"]
    assert ".jpg" not in facts["formats"]["written"]
    assert facts["models"]["nuclei"]["place"] == "package"
    assert {"predict", "data convert", "compare", "compare list", "info"} <= set(facts["commands"])
    predict = facts["commands"]["predict"]
    assert predict["summary"] == "Segment images with a trained model."
    arguments = {argument["names"][0]: argument for argument in predict["arguments"]}
    assert arguments["--output"]["required"]
    assert not arguments["--mirror"]["required"]
    assert arguments["--devices"]["help"].startswith("Devices separated by commas")
    assert all(argument["help"] for row in facts["commands"].values() for argument in row["arguments"])


@pytest.mark.parametrize(
    ("fault", "text"),
    [(None, "2026-11-30: correct"), ("they failed (reason)", "2026-11-30: not used: they failed (reason)")],
)
def test_kept_checks_are_shown(command, monkeypatch, fault, text):
    verdict = KernelVerdict("cuda:0", "mlstm", "float32", fault is None, fault, "2026-11-30")
    monkeypatch.setattr("scanseg.ops.kernel_verdicts", lambda: [verdict])
    assert text in " ".join(command("info").stdout.split())
    assert json.loads(command("info", "--json").stdout)["kernel_checks"] == [verdict._asdict()]


def test_without_a_gpu_no_check_is_shown(command, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "last check" not in command("info").stdout
    assert json.loads(command("info", "--json").stdout)["kernel_checks"] == []
