"""Kernels are compiled before the first step, and nothing else comes of it."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scanseg.models import ModelFolder
from scanseg.progress import ignore_progress
from scanseg.runtime import RunContext
from scanseg.specs import AdamWSpec, SGDSpec
from scanseg.training.kernel_compilation import buffers_kept, compile_kernels
from tests.factories import make_square_batch

from .test_step import MSVM, XLSTM, make_step, plan_of, weights


class Kernels:
    """Stands for Triton on the CPU: passes ask for kernels, and what they compute is worthless."""

    def __init__(self, monkeypatch):
        self.blocks = []
        monkeypatch.setattr("scanseg.training.kernel_compilation.compile_ahead", self)

    def __call__(self, num_threads, *, backward_on, progress):
        self.blocks.append((num_threads, backward_on))
        for done in (1, 2, 3):
            progress(done, 3)
        return nullcontext()


@pytest.fixture
def kernels(monkeypatch):
    return Kernels(monkeypatch)


def compiling(step, monkeypatch, *, threads=2, progress=ignore_progress):
    """Let a fit on the CPU compile as it does on a GPU."""
    monkeypatch.setattr(step, "_compiling_threads", threads)
    monkeypatch.setattr(step, "_context", RunContext(device="cpu", progress=progress))
    return step


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize(("network", "size"), [(XLSTM, 16), (MSVM, 64)], ids=["xlstm", "msvm"])
def test_steps_are_those_of_a_training_that_compiles_as_it_goes(kernels, monkeypatch, network, size, dtype):
    """Parameters, running statistics, the optimizer's state and the loss scale are equal bit by bit."""
    plan = plan_of(network, size, optimizer=AdamWSpec(lr=1e-3), ema_decay=0.9)
    plain, ahead = make_step(plan, dtype=dtype), compiling(make_step(plan, dtype=dtype), monkeypatch)
    for iteration in range(2):
        losses = [step.run(make_square_batch(size, iteration), lr=1e-3) for step in (plain, ahead)]
        assert torch.equal(*losses)

    assert kernels.blocks == [(2, torch.device("cpu"))]
    assert torch.equal(weights(ahead), weights(plain))
    first, second = plain.checkpoint(), ahead.checkpoint()
    assert second.state == first.state
    for expected, found in (
        (first.network, second.network),
        (first.optimizer, second.optimizer),
        (first.ema, second.ema),
    ):
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_kernels_are_requested_before_the_optimizer_is_built(monkeypatch):
    """Building an optimizer imports PyTorch's compiler, for which the kernels need not wait."""
    built = []
    step = compiling(make_step(plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-3))), monkeypatch)
    monkeypatch.setattr(
        "scanseg.training.step.compile_kernels",
        lambda *run, **others: built.append("_optimizer" in vars(step)),
    )
    step.run(make_square_batch(64, 0), lr=1e-3)
    assert built == [False]
    assert "_optimizer" in vars(step)


def test_compiling_takes_until_the_last_process_is_ready(monkeypatch):
    """The first step would wait for it, and count it as training."""
    step = compiling(make_step(plan_of(XLSTM, 16, optimizer=AdamWSpec())), monkeypatch)
    monkeypatch.setattr("scanseg.training.step.compile_kernels", lambda *run, **others: None)
    step._distributed = SimpleNamespace(gather_numbers=lambda numbers: time.sleep(0.2))
    step._compile(make_square_batch(16, 0))
    assert 0.2 <= step.compiling_seconds < 10


def test_a_restored_training_compiles_before_its_first_step_and_goes_on_exactly(
    kernels, monkeypatch, tmp_path
):
    plan = plan_of(MSVM, 64, optimizer=AdamWSpec(lr=1e-3))
    whole, restored = make_step(plan), compiling(make_step(plan), monkeypatch)
    whole.run(make_square_batch(64, 0), lr=1e-3)
    folder = ModelFolder.create(tmp_path / "model", plan)
    folder.write_checkpoint(whole.checkpoint())
    restored.restore(folder.read_checkpoint())
    for step in (whole, restored):
        step.run(make_square_batch(64, 1), lr=1e-3)

    assert len(kernels.blocks) == 1
    assert torch.equal(weights(restored), weights(whole))


def test_compiling_is_told_of(kernels, monkeypatch):
    heard = []
    step = compiling(make_step(plan_of(XLSTM, 16, optimizer=AdamWSpec())), monkeypatch, progress=heard.append)
    step.run(make_square_batch(16, 0), lr=1e-3)
    assert [(progress.task, progress.done, progress.total) for progress in heard] == [
        ("compiling kernels", done, 3) for done in (1, 2, 3)
    ]


def test_nothing_is_compiled_ahead_on_a_cpu(kernels):
    make_step(plan_of(XLSTM, 16, optimizer=AdamWSpec())).run(make_square_batch(16, 0), lr=1e-3)
    assert kernels.blocks == []


def test_worthless_numbers_leave_buffers_as_they_were():
    norm = nn.BatchNorm2d(2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with buffers_kept(norm):
        norm(torch.full((1, 2, 3, 3), torch.nan))
        assert norm.running_mean.isnan().all()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "direct"])
@pytest.mark.parametrize(("network", "size"), [(XLSTM, 16), (MSVM, 64)], ids=["xlstm", "msvm"])
def test_on_a_gpu_steps_are_those_of_a_training_that_compiles_as_it_goes(network, size, graph):
    plan = plan_of(network, size, optimizer=SGDSpec(lr=1e-2), cuda_graph=graph)
    states = []
    for threads in (0, 4):
        step = make_step(plan, device="cuda", dtype=torch.bfloat16, num_compiling_threads=threads)
        for iteration in range(3):
            step.run(make_square_batch(size, iteration, device="cuda"), lr=1e-2)
        states.append({name: value.float() for name, value in step.network.state_dict().items()})
    # cuDNN may choose other algorithms the second time, whose products of bf16 are rounded otherwise.
    torch.testing.assert_close(states[1], states[0], atol=2e-3, rtol=1e-2)


@pytest.mark.gpu
def test_on_a_gpu_the_first_step_compiles_nothing_that_is_not_compiled_ahead(tmp_path, monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    events = []
    monkeypatch.setattr(
        triton.knobs.runtime,
        "jit_post_compile_hook",
        lambda *, repr, is_manual_warmup, **others: events.append((is_manual_warmup, repr)),
    )
    # A size that no other test has, since a process keeps its kernels.
    step = make_step(plan_of(MSVM, 96, optimizer=AdamWSpec()), device="cuda", dtype=torch.bfloat16)
    step.run(make_square_batch(96, 0, device="cuda"), lr=1e-3)
    step.logits(make_square_batch(96, 1, device="cuda"))
    assert events
    assert [name for is_ahead, name in events if not is_ahead] == []


@pytest.mark.gpu
def test_on_a_gpu_memory_is_given_back(generator):
    network = nn.Conv2d(1, 64, 3).cuda()
    images = torch.randn(4, 1, 256, 256, generator=generator).cuda()
    held = torch.cuda.memory_reserved()
    compile_kernels(
        lambda: network(images).square().sum().backward(),
        network,
        context=RunContext(device=images.device),
        num_threads=2,
    )
    assert torch.cuda.memory_reserved() - held < 64 * 2**20
    assert network.weight.grad is None
