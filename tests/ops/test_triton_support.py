"""The parts that all operators with Triton kernels share."""

from contextlib import nullcontext

import pytest
import torch

from scanseg.ops._support import triton as triton_support


@pytest.mark.parametrize("first", [(), (None, 3)])
def test_kernels_are_launched_on_the_device_of_the_first_tensor(monkeypatch, first):
    chosen = []

    def choose(device):
        chosen.append(device)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", choose)
    with torch._subclasses.FakeTensorMode():
        tensor = torch.empty(2, device="cuda:1")
    with triton_support.current_device(*first, tensor, torch.empty(2)):
        pass
    assert chosen == [torch.device("cuda:1")]


def test_no_device_is_selected_on_the_cpu():
    with triton_support.current_device(torch.empty(2)) as chosen:
        assert chosen is None


def test_every_triton_operator_selects_the_device_of_its_tensors():
    bodies = {
        name: definition._init_fn
        for name, definition in torch._library.custom_ops.OPDEFS.items()
        if name.startswith("scanseg::") and definition._init_fn.__module__.endswith(".triton_backend")
    }
    assert "scanseg::mlstm_triton" in bodies
    for name, body in bodies.items():
        assert hasattr(body, "__wrapped__"), name
