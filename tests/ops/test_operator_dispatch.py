"""Choice of a backend: the first one that accepts, or a named one, which runs the call or raises with its reason."""

import pytest
import torch

from scanseg.errors import UsageError
from scanseg.ops import describe_backends
from scanseg.ops._support.dispatch import Backend, choose

CPU_TENSOR = torch.zeros(1)


def gpu_only(*tensors):
    return None if tensors[0].is_cuda else f"expected tensors on a GPU, got {tensors[0].device}"


TABLE = {
    "gpu": Backend(torch.neg, gpu_only),
    "extra": Backend(torch.neg, unavailable="numba is not installed; pip install 'scanseg[cpu]'"),
    "plain": Backend(torch.abs),
    "reference": Backend(torch.sign),
}


def test_the_first_backend_that_accepts_is_chosen():
    assert choose("operator", TABLE, None, CPU_TENSOR) is TABLE["plain"]


def test_a_named_backend_is_chosen():
    assert choose("operator", TABLE, "reference", CPU_TENSOR) is TABLE["reference"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "operator: backend 'gpu' cannot run: expected tensors on a GPU, got cpu"),
        ("extra", r"backend 'extra' cannot run: numba is not installed"),
        ("missing", "operator: expected one of the backends gpu, extra, plain, reference, got 'missing'"),
    ],
)
def test_a_named_backend_never_falls_back(name, reason):
    with pytest.raises(UsageError, match=reason):
        choose("operator", TABLE, name, CPU_TENSOR)


def test_the_error_lists_all_reasons_if_no_backend_accepts():
    table = {name: TABLE[name] for name in ("gpu", "extra")}
    with pytest.raises(UsageError, match=r"'gpu' cannot run: expected .*'extra' cannot run: numba"):
        choose("operator", table, None, CPU_TENSOR)


def test_a_custom_backend_is_not_chosen_while_a_network_is_exported(monkeypatch):
    backends = {"custom": Backend(torch.sin, custom=True), "plain": Backend(torch.cos)}
    x = torch.ones(2)
    assert choose("operator", backends, None, x).run is torch.sin
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    assert choose("operator", backends, None, x).run is torch.cos


class Wave(torch.nn.Module):
    """A module that computes a sine by a custom backend and a cosine by another one."""

    def forward(self, x):
        backends = {"custom": Backend(torch.sin, custom=True), "plain": Backend(torch.cos)}
        return choose("operator", backends, None, x).run(x)


def test_a_custom_backend_is_chosen_under_compilation_but_not_under_export():
    x = torch.ones(2)
    torch.testing.assert_close(torch.compile(Wave(), backend="eager", fullgraph=True)(x), x.sin())
    for strict in (False, True):
        exported = torch.export.export(Wave(), (x,), strict=strict).module()
        torch.testing.assert_close(exported(x), x.cos())


def test_choosing_traces():
    @torch.compile(backend="eager", fullgraph=True)
    def negative(tensor):
        return choose("operator", TABLE, None, tensor).run(tensor)

    torch.testing.assert_close(negative(-torch.ones(2)), torch.ones(2))


def test_every_operator_has_a_backend_that_is_always_available():
    statuses = describe_backends()
    available = {(status.operator, status.backend) for status in statuses if status.reason is None}
    for operator in ("selective_scan", "ss2d_scan", "mlstm"):
        assert {(operator, "chunked"), (operator, "reference")} <= available
