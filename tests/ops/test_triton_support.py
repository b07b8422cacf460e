"""What all operators with Triton kernels share."""

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


def test_nothing_is_chosen_on_the_cpu():
    with triton_support.current_device(torch.empty(2)) as chosen:
        assert chosen is None


def test_every_operator_of_triton_goes_through_the_shared_mechanism():
    operators = [name for name in dir(torch.ops.scanseg) if "triton" in name]
    assert operators
    definitions = torch._library.custom_ops.OPDEFS
    for name, definition in definitions.items():
        if name.startswith("scanseg::") and definition._init_fn.__module__.endswith(".triton_gpu"):
            assert hasattr(definition._init_fn, "__wrapped__"), name
