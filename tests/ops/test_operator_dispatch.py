"""Choosing a backend: the first that accepts serves; one asked for by name serves or is refused with its reason."""

import pytest
import torch

from scanseg.errors import UsageError
from scanseg.ops import describe_backends
from scanseg.ops._support.dispatch import Backend, choose

CPU_TENSOR = torch.zeros(1)


def gpu_only(*tensors):
    return None if tensors[0].is_cuda else f"the tensors are on {tensors[0].device}, not on a GPU"


TABLE = {
    "gpu": Backend(torch.neg, gpu_only),
    "extra": Backend(torch.neg, unavailable="numba is not installed; pip install 'scanseg[cpu]'"),
    "plain": Backend(torch.abs),
    "reference": Backend(torch.sign),
}


def test_the_first_that_accepts_serves():
    assert choose("operator", TABLE, None, CPU_TENSOR) is TABLE["plain"]


def test_one_asked_for_by_name_serves():
    assert choose("operator", TABLE, "reference", CPU_TENSOR) is TABLE["reference"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "operator: backend 'gpu' refuses: the tensors are on cpu, not on a GPU"),
        ("extra", r"numba is not installed; pip install 'scanseg\[cpu\]'"),
        ("missing", "operator has no backend 'missing'; choose one of: gpu, extra, plain, reference"),
    ],
)
def test_one_asked_for_by_name_never_falls_back(name, reason):
    with pytest.raises(UsageError, match=reason):
        choose("operator", TABLE, name, CPU_TENSOR)


def test_all_reasons_are_given_when_none_accepts():
    table = {name: TABLE[name] for name in ("gpu", "extra")}
    with pytest.raises(UsageError, match=r"'gpu' refuses: the tensors are on cpu.*'extra' refuses: numba"):
        choose("operator", table, None, CPU_TENSOR)


def test_choosing_traces():
    @torch.compile(backend="eager", fullgraph=True)
    def negative(tensor):
        return choose("operator", TABLE, None, tensor).run(tensor)

    torch.testing.assert_close(negative(-torch.ones(2)), torch.ones(2))


def test_every_operator_lists_a_backend_that_serves_anywhere():
    statuses = describe_backends()
    available = {(status.operator, status.backend) for status in statuses if status.reason is None}
    for operator in ("selective_scan", "ss2d_scan", "mlstm"):
        assert {(operator, "chunked"), (operator, "reference")} <= available
