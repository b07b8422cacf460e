"""Kernels are compiled while a block runs. On the CPU of these tests nothing is compiled."""

import importlib
import threading
import time
from contextlib import contextmanager

import pytest

import scanseg
from scanseg.experiments import single
from scanseg.ops import cores_for_compiling
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, workers
from scanseg.specs import Plan
from scanseg.training import compiled_early, expect_compiling
from scanseg.training.warm_up import can_compile


@pytest.fixture
def module(monkeypatch):
    """The module, which may compile for a CPU. A warm-up waits until it is released."""
    module = importlib.import_module("scanseg.training.early_compilation")
    module.released, module.calls = threading.Event(), []

    def warm_up(plans, *, purposes, context):
        module.calls.append((plans, purposes, threading.current_thread()))
        assert module.released.wait(20)
        for done in (1, 2):
            context.progress(ProgressUpdate("compiling kernels", done, 2))

    module.started = []
    monkeypatch.setattr(module, "can_compile", lambda device: True)
    monkeypatch.setattr(module, "start_compile_processes", module.started.append)
    monkeypatch.setattr(module, "warm_up", warm_up)
    yield module
    module.released.set()
    for _, _, thread in module.calls:
        thread.join()


def test_the_block_runs_meanwhile_and_its_end_waits(module, plan):
    made, updates = Plan.read(plan), []
    with compiled_early(made, context=RunContext(device="cpu", progress=updates.append)):
        threading.Timer(0.3, module.released.set).start()
        begin = time.monotonic()
    assert time.monotonic() - begin > 0.2
    ((plans, purposes, thread),) = module.calls
    assert (plans, purposes) == ([made], ("training",))
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    assert [(update.task, update.done) for update in updates] in ([("compiling kernels", 2)], [])


def test_an_error_of_the_block_comes_at_once(module, plan):
    begin = time.monotonic()
    with (
        pytest.raises(ValueError, match="damaged"),
        compiled_early(Plan.read(plan), context=RunContext(device="cpu")),
    ):
        raise ValueError("damaged image")
    assert time.monotonic() - begin < 10


def test_the_end_waits_for_the_thread_of_an_earlier_training_that_failed(module, monkeypatch, plan):
    """It would restore the random generators while the second training draws from them."""
    context = RunContext(device="cpu")
    with pytest.raises(ValueError, match="damaged"), compiled_early(Plan.read(plan), context=context):
        raise ValueError("damaged image")
    ((_, _, thread),) = module.calls
    monkeypatch.setattr(module, "warm_up", lambda plans, **others: None)
    with compiled_early(Plan.read(plan), context=context):
        assert thread.is_alive()
        threading.Timer(0.3, module.released.set).start()
    assert not thread.is_alive()


def test_the_library_of_the_arrays_is_imported_before_the_wait(module, monkeypatch, plan):
    """The training needs it next."""
    compiling = []

    def import_library():
        compiling.append(module.calls[0][2].is_alive())
        module.released.set()

    monkeypatch.setattr(module, "import_array_library", import_library)
    with compiled_early(Plan.read(plan), context=RunContext(device="cpu")):
        pass
    assert compiling == [True]


def test_worker_processes_of_the_preparation_end_before_the_wait(monkeypatch, dataset, tmp_path):
    are_kept = []

    @contextmanager
    def compiled(plan, *, context):
        are_kept.append(workers._kept_pools.get() is not None)
        yield
        are_kept.append(workers._kept_pools.get() is not None)

    monkeypatch.setattr(single, "compiled_early", compiled)
    monkeypatch.setattr(single.TrainingJob, "run", lambda job, context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scanseg.train(dataset, tmp_path / "model", device="cpu", recipe="plain-unet", epochs=1)
    assert are_kept == [True, False]


def test_a_stop_ends_the_wait(module, plan):
    context = RunContext(device="cpu", should_stop=lambda: True)
    with compiled_early(Plan.read(plan), context=context):
        pass
    assert module.calls[0][2].is_alive()


def test_an_error_of_the_compilation_is_left_to_the_training(module, monkeypatch, plan):
    monkeypatch.setattr(module, "warm_up", lambda plans, **others: 1 / 0)
    with compiled_early(Plan.read(plan), context=RunContext(device="cpu")):
        pass


def test_processes_that_compile_are_started_for_a_gpu(module):
    expect_compiling(RunContext(device="cpu"))
    assert module.started == [cores_for_compiling()]


def test_nothing_is_compiled_for_a_cpu(plan):
    context = RunContext(device="cpu")
    assert not can_compile(context.torch_device)
    before = threading.active_count()
    with compiled_early(Plan.read(plan), context=context):
        assert threading.active_count() == before


def test_a_training_compiles_while_its_store_is_built(module, monkeypatch, dataset, tmp_path):
    seen = []
    build = single.prepare_store

    def prepare_store(*arguments, **options):
        seen.append(len(module.calls) == 1 and module.calls[0][2].is_alive())
        module.released.set()
        return build(*arguments, **options)

    monkeypatch.setattr(single, "prepare_store", prepare_store)
    monkeypatch.setattr(single.TrainingJob, "run", lambda job, context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scanseg.train(dataset, tmp_path / "model", device="cpu", recipe="plain-unet", epochs=1)
    assert seen == [True]
    assert module.started == [cores_for_compiling()]
