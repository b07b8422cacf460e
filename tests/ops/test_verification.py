"""Comparison of the kernels with float64 on the user's machine."""

import pytest
import torch

from scanseg.ops import describe_backends, instance_norm, verification, verify_kernels
from scanseg.ops._support.triton import INTERPRETED

pytest.importorskip("triton")


@pytest.mark.skipif(not INTERPRETED, reason="the kernels are a GPU's")
def test_correct_kernels_pass():
    checks = verify_kernels(torch.device("cpu"))
    assert [check for check in checks if not check.passed] == []
    with_kernels = {status.operator for status in describe_backends() if status.backend == "triton"}
    assert {check.operator for check in checks} == with_kernels
    assert {check.dtype for check in checks} == {"float32", "bfloat16"}


@pytest.mark.gpu
def test_correct_kernels_pass_on_a_gpu():
    checks = verify_kernels(torch.device("cuda"))
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("wrong", [1.1, float("nan")], ids=["other", "nan"])
@pytest.mark.parametrize("part", ["result", "gradient"])
def test_wrong_numbers_do_not_pass(monkeypatch, part, wrong):
    def call(inputs, backend):
        y = instance_norm(**inputs, backend="reference")
        if backend != "triton":
            return y
        if part == "result":
            return y * wrong
        y.register_hook(lambda grad: grad * wrong)
        return y

    case = verification._Case({"x": (1, 4, 5, 5), "weight": (4,), "bias": (4,)}, call)
    monkeypatch.setattr(verification, "_cases", lambda device: {"norm": case})
    monkeypatch.setattr(verification, "MISSING", None)
    assert [check.passed for check in verify_kernels(torch.device("cpu"))] == [False, False]


def test_without_triton_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(verification, "MISSING", "Triton is not installed.")
    assert verify_kernels(torch.device("cpu")) == []
