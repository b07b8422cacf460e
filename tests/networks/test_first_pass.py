"""The first pass of a network in a loop of the user's own compiles its kernels in threads."""

import copy
import logging
import time
from contextlib import contextmanager

import pytest
import torch

from scanseg.networks import MSVMUNet, XLSTMUNet, first_pass
from scanseg.networks.first_pass import compile_before_first_pass
from scanseg.ops._support import launching


def xlstm():
    strides = ((1, 1), (2, 2), (2, 2))
    return XLSTMUNet(1, 3, patch_size=(32, 32), strides=strides, features=(8, 12, 16))


def msvm():
    return MSVMUNet(1, 3, dims=(16, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.5)


@pytest.fixture(params=[xlstm, msvm])
def network(request):
    torch.manual_seed(0)
    return request.param()


@pytest.fixture
def blocks(monkeypatch):
    """Stand for Triton on the CPU. Each block counts the passes of the network in it."""
    found = []

    @contextmanager
    def block(num_threads):
        found.append(num_threads)
        yield

    monkeypatch.setattr(first_pass, "compile_ahead", block)
    monkeypatch.setattr(first_pass, "can_compile_ahead", lambda images: True)
    first_pass._prepared.clear()
    yield found
    first_pass._prepared.clear()


def images_of(batch=2):
    return torch.randn(batch, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_each_kind_of_pass_compiles_once(network, blocks):
    for _ in range(2):
        compile_before_first_pass(network, images_of())
    assert len(blocks) == 1
    network.eval()
    compile_before_first_pass(network, images_of())
    with torch.no_grad():
        compile_before_first_pass(network, images_of())
        compile_before_first_pass(network, images_of(3))  # another size is no other kind
    assert len(blocks) == 3


def test_nothing_of_the_caller_is_changed(network, blocks):
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    compile_before_first_pass(network, images_of())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.state_dict().keys() == before.keys()


def test_the_backward_pass_is_requested_in_the_same_thread(network, blocks, monkeypatch):
    found = []
    grad = torch.autograd.grad

    def watched(*arguments, **options):
        found.append(torch._C._is_multithreading_enabled())
        return grad(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    compile_before_first_pass(network, images_of())
    assert found == [False]
    with torch.no_grad():
        compile_before_first_pass(network.eval(), images_of())
    assert found == [False]


def test_hooks_of_the_user_see_no_meaningless_values(network, blocks):
    seen = []
    next(network.children()).register_forward_hook(lambda *values: seen.append(values))
    compile_before_first_pass(network, images_of())
    assert blocks == []
    assert seen == []


def test_a_pass_in_a_block_of_the_caller_counts(network, blocks, monkeypatch):
    monkeypatch.setattr(first_pass, "is_compiling_ahead", lambda: True)
    compile_before_first_pass(network, images_of())
    monkeypatch.setattr(first_pass, "is_compiling_ahead", lambda: False)
    compile_before_first_pass(network, images_of())
    assert blocks == []


def test_a_place_without_compilation_does_not_count(network, blocks, monkeypatch):
    monkeypatch.setattr(first_pass, "can_compile_ahead", lambda images: False)
    compile_before_first_pass(network, images_of())
    assert blocks == []
    monkeypatch.setattr(first_pass, "can_compile_ahead", lambda images: True)
    compile_before_first_pass(network, images_of())
    assert len(blocks) == 1


def test_too_little_memory_does_not_stop_the_pass(network, blocks, monkeypatch):
    def forward(images):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(network, "forward", forward)
    compile_before_first_pass(network, images_of())
    assert len(blocks) == 1


def test_on_a_cpu_nothing_is_compiled(network, blocks):
    network(images_of())
    assert blocks == []


def test_a_long_compilation_is_reported(monkeypatch, caplog):
    class Compilation:
        def counts(self):
            return 3, 12

    monkeypatch.setattr(launching, "SECONDS_BETWEEN_MESSAGES", 0.02)
    with caplog.at_level(logging.WARNING), launching._messages(Compilation()):
        time.sleep(0.5)
    assert len(caplog.records) >= 2
    assert caplog.records[0].getMessage() == "compiling GPU kernels, once on this machine: 3 of 12"


@pytest.mark.gpu
def test_on_a_gpu_the_first_step_compiles_in_threads(network, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    events = []
    monkeypatch.setattr(
        triton.knobs.runtime,
        "jit_post_compile_hook",
        lambda *, repr, is_manual_warmup, **others: events.append(is_manual_warmup),
    )
    # A size that no other test has, since a process keeps its kernels.
    network = network.cuda()
    size = 32 if isinstance(network, XLSTMUNet) else 160
    images = torch.randn(3, 1, size, size, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        outputs = network(images)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    sum(output.float().square().mean() for output in outputs).backward()
    assert events
    assert all(events)
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters()
    )
