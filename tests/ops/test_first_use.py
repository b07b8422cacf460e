"""Triton kernels are checked at their first use, and wrong ones are replaced."""

import json
import logging
import multiprocessing
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scanseg.errors import ScansegError
from scanseg.ops import compile_ahead, instance_norm, kernel_verdicts, verification, verify_kernels
from scanseg.ops._support import accepted_calls, first_use, launching, triton, verdicts
from scanseg.ops._support.dispatch import Backend
from scanseg.ops._support.verdicts import Verdict, VerdictFile
from scanseg.ops.feed_forward import BACKENDS as FEED_FORWARD
from scanseg.ops.instance_norm import BACKENDS

COMBINATION = {"gpu": "a GPU of this test", "sources": "0"}


class Kernels:
    """Stands for kernels on a GPU. Tensors are on the CPU, whose index is -1."""

    def __init__(self):
        self.calls, self.compute = 0, torch.nn.functional.instance_norm
        self.run = self.right

    def __call__(self, x, weight, bias, *others, **options):
        self.calls += 1
        return self.run(BACKENDS["pytorch"].run(x, weight, bias, *others, **options))

    def right(self, y):
        return y

    def doubled(self, y):
        return 2 * y

    def of_wrong_gradient(self, y):
        y.register_hook(lambda grad: 2 * grad) if y.requires_grad else None
        return y

    def not_a_number(self, y):
        return y * torch.nan

    def raising(self, y):
        raise RuntimeError("CUDA error: invalid argument\nmore lines")

    def not_compiling(self, y):
        raise ValueError("at 3:4:\n    x = tl.dot(a, b)\n        ^\nshapes do not fit")


FAULTS = {
    "doubled": "results are wrong",
    "of_wrong_gradient": "results are wrong",
    "not_a_number": "NaN",
    "raising": "CUDA error: invalid argument",
    "not_compiling": "shapes do not fit",
}


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """Kernels of instance norm that run on the CPU, without verdicts."""
    kernels = Kernels()
    backend = Backend(kernels, lambda x, *others: "float64" if x.dtype == torch.float64 else None)
    monkeypatch.setitem(BACKENDS, "triton", backend)
    monkeypatch.setattr(verdicts, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(first_use, "combination_of", lambda device: COMBINATION)
    monkeypatch.setattr(verification, "INTERPRETED", True)  # nothing is compiled ahead
    monkeypatch.setattr(first_use, "INTERPRETED", False)
    monkeypatch.setattr(verification, "MISSING", None)
    monkeypatch.setattr(accepted_calls, "is_settled", settled_on_a_gpu)
    forget()
    yield kernels
    forget()
    verdicts._report_once.cache_clear()


def forget():
    """Forget the verdicts, as a new process has none."""
    for known in (
        first_use.refused,
        first_use._usable,
        first_use._verdicts,
        first_use._files,
        first_use._requested,
        first_use._noted,
        triton.on_first_run,
    ):
        known.clear()
    accepted_calls.forget()


def normed(dtype=torch.float32) -> Tensor:
    """Run instance norm without the name of a backend."""
    x = torch.arange(2 * 3 * 4 * 5, dtype=dtype).view(2, 3, 4, 5).requires_grad_()
    y = instance_norm(x, torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype))
    return torch.cat([y.flatten(), *torch.autograd.grad(y.square().sum(), x)[0].flatten(1)])


def expected(dtype=torch.float32) -> Tensor:
    x = torch.arange(2 * 3 * 4 * 5, dtype=dtype).view(2, 3, 4, 5).requires_grad_()
    y = instance_norm(x, torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype), backend="pytorch")
    return torch.cat([y.flatten(), *torch.autograd.grad(y.square().sum(), x)[0].flatten(1)])


def kept(tmp_path):
    return {key: verdict.fault for key, verdict in VerdictFile(COMBINATION).read().items()}


def test_correct_kernels_are_checked_once_and_used(kernels, tmp_path, caplog):
    assert torch.equal(normed(), expected())
    checked = kernels.calls
    assert checked == 2  # the check, and the call itself
    assert kept(tmp_path) == {("instance_norm", "float32"): None}
    normed()
    assert kernels.calls == checked + 1
    forget()
    normed()
    assert kernels.calls == checked + 2
    assert "not used" not in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_kernels_are_replaced_and_reported(kernels, tmp_path, caplog, fault):
    kernels.run = getattr(kernels, fault)
    assert torch.equal(normed(), expected())
    assert torch.equal(normed(), expected())
    assert kernels.calls == 1  # the check
    assert FAULTS[fault] in kept(tmp_path)["instance_norm", "float32"]
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert FAULTS[fault] in warnings[0]
    assert "the Triton kernels of instance_norm are not used" in warnings[0]
    assert "Install another version of PyTorch" in warnings[0]


def test_a_verdict_of_another_process_is_used_and_reported(kernels, caplog):
    kernels.run = kernels.doubled
    normed()
    forget()
    caplog.clear()
    assert torch.equal(normed(), expected())
    assert kernels.calls == 1
    assert "are not used" in caplog.text


def test_each_dtype_has_a_verdict(kernels, tmp_path):
    kernels.run = lambda y: y * (2 if y.dtype == torch.bfloat16 else 1)
    assert torch.equal(normed(torch.bfloat16), expected(torch.bfloat16))
    assert torch.equal(normed(), expected())
    assert kernels.calls == 3
    found = kept(tmp_path)
    assert found["instance_norm", "float32"] is None
    assert found["instance_norm", "bfloat16"] is not None


def test_the_dtype_of_autocast_is_checked_too(kernels, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.float16)
    normed()
    assert {dtype for _, dtype in kept(tmp_path)} == {"float32", "float16"}


@pytest.mark.parametrize("operator", ["ss2d_branch", "feed_forward"])
def test_branches_are_checked_in_the_dtype_of_autocast_alone(kernels, monkeypatch, operator):
    """Their kernels in float32 do not run, and some of them take seconds to compile."""
    checked = []

    def check(uses):
        checked.extend(uses)
        first_use._verdicts.update(dict.fromkeys(uses))

    monkeypatch.setattr(first_use, "_check", check)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    first_use.may_use_kernels(operator, torch.ones(1, 3, 2, 2))
    assert [use.key for use in checked] == [(operator, "bfloat16")]


def test_another_combination_is_checked_again(kernels, monkeypatch):
    normed()
    forget()
    monkeypatch.setattr(first_use, "combination_of", lambda device: COMBINATION | {"sources": "1"})
    normed()
    assert kernels.calls == 4
    assert VerdictFile(COMBINATION).path != VerdictFile(COMBINATION | {"sources": "1"}).path


@pytest.fixture
def gpu(monkeypatch):
    """The properties of a GPU on every machine."""
    properties = SimpleNamespace(name="NVIDIA H200", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_the_combination_needs_no_private_function_of_a_pytorch_build(gpu):
    combination = verdicts.combination_of(torch.device("cuda", 0))
    assert combination["gpu"] == "NVIDIA H200, compute capability 9.0"
    assert combination["torch"] == torch.__version__
    assert all(combination.values())


def test_the_driver_is_read_from_the_system(gpu, monkeypatch, tmp_path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX  580.1\nGCC version: 12\n", encoding="utf-8")
    monkeypatch.setattr(verdicts, "_DRIVER", file)
    assert verdicts.combination_of(torch.device("cuda", 0))["driver"] == "NVRM version: NVIDIA UNIX  580.1"


@pytest.mark.parametrize(
    ("failed", "driver"), [(0, "CUDA 13.1"), (999, "CUDA unknown"), (None, "CUDA unknown")]
)
def test_without_that_file_the_library_of_the_driver_answers(gpu, monkeypatch, tmp_path, failed, driver):
    def load(name):
        if failed is None:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cuDriverGetVersion=get_version)

    def get_version(reference):
        reference._obj.value = 13010
        return failed

    monkeypatch.setattr(verdicts, "_DRIVER", tmp_path / "missing")
    monkeypatch.setattr(verdicts.ctypes, "CDLL", load)
    assert verdicts.combination_of(torch.device("cuda", 0))["driver"] == driver


def test_the_digest_covers_the_sources():
    assert verdicts.digest_of_sources() == verdicts.digest_of_sources.__wrapped__()
    assert len(verdicts.digest_of_sources()) == 16


def test_a_named_backend_is_neither_checked_nor_replaced(kernels):
    kernels.run = kernels.doubled
    x = torch.arange(8.0).view(1, 2, 4)
    y = instance_norm(x, torch.ones(2), torch.zeros(2), backend="triton")
    assert torch.equal(y, 2 * instance_norm(x, torch.ones(2), torch.zeros(2), backend="pytorch"))
    assert kernels.calls == 1


def test_a_folder_that_cannot_be_written_is_reported_once(kernels, tmp_path, monkeypatch, caplog):
    (tmp_path / "kernels").write_text("a file instead of a folder")
    kernels.run = kernels.doubled
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(normed(dtype), expected(dtype))
    assert kernels.calls == 2
    assert [entry.getMessage() for entry in caplog.records if "cannot be kept" in entry.getMessage()] != []
    assert sum("cannot be kept" in entry.getMessage() for entry in caplog.records) == 1


def test_a_user_without_a_home_folder_checks_in_memory(kernels, monkeypatch):
    def missing():
        raise RuntimeError("no home folder")

    monkeypatch.setattr(verdicts, "cache_folder", missing)
    assert torch.equal(normed(), expected())
    normed()
    assert kernels.calls == 3


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"combination": 1}', json.dumps({"combination": COMBINATION, "verdicts": [{}]})],
)
def test_a_damaged_file_counts_as_empty(kernels, tmp_path, content):
    file = VerdictFile(COMBINATION)
    file.path.parent.mkdir()
    file.path.write_text(content)
    assert torch.equal(normed(), expected())
    assert kept(tmp_path) == {("instance_norm", "float32"): None}


@pytest.mark.parametrize("entry", [{"fault": 3}, {"error": "much"}, {"operator": None}])
def test_an_invalid_verdict_is_not_read(kernels, entry):
    verdict = Verdict("mlstm", "float32", None, 1e-6, "2026-11-30")
    file = VerdictFile(COMBINATION)
    file.add([verdict._replace(**entry)])
    assert file.read() == {}
    file.add([verdict])
    assert file.read() == {("mlstm", "float32"): verdict}


def test_nothing_is_checked_in_the_capture_of_a_graph(kernels, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    kernels.run = kernels.doubled
    assert not torch.equal(normed(), expected())  # the kernels are used
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert torch.equal(normed(), expected())  # and checked later


def test_nothing_is_checked_in_a_forked_process(kernels, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    normed()
    assert kernels.calls == 1
    assert kept(tmp_path) == {}


def test_nothing_is_checked_in_a_backward_pass(kernels, tmp_path):
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    y.register_hook(lambda grad: instance_norm(torch.ones(1, 2, 4), x, x).sum() * 0 + grad)
    y.sum().backward()
    assert kernels.calls == 1
    assert kept(tmp_path) == {}


def test_nothing_is_checked_under_a_dispatch_mode(kernels, tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        normed()
    assert kernels.calls == 1
    assert kept(tmp_path) == {}


def test_compiled_code_uses_a_kept_verdict(kernels, tmp_path):
    VerdictFile(COMBINATION).add([Verdict("instance_norm", "float32", "wrong", 1.0, "2026-11-30")])
    x, ones = torch.arange(24.0).view(2, 3, 4), torch.ones(3)
    compiled = torch.compile(lambda x: instance_norm(x, ones, ones), backend="eager", fullgraph=True)
    kernels.run = kernels.doubled
    assert torch.equal(compiled(x), instance_norm(x, ones, ones, backend="pytorch"))
    assert kernels.calls == 0


def test_compiled_code_is_checked_when_it_runs(kernels, tmp_path):
    x, ones = torch.arange(24.0).view(2, 3, 4), torch.ones(3)
    compiled = torch.compile(lambda x: instance_norm(x, ones, ones), backend="eager", fullgraph=True)
    kernels.run = kernels.doubled
    assert torch.equal(compiled(x), 2 * instance_norm(x, ones, ones, backend="pytorch"))
    assert kept(tmp_path) == {}  # nothing is checked while code is compiled
    body = triton.on_its_device(lambda x: x)
    with pytest.raises(ScansegError, match="instance_norm are wrong on this GPU"):
        body(x)  # kernels in compiled code run by this function
    assert kept(tmp_path)["instance_norm", "float32"] is not None
    assert torch.equal(compiled(x), instance_norm(x, ones, ones, backend="pytorch"))


def test_compiled_branches_are_checked_in_the_dtype_of_autocast(kernels, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    for operator in ("feed_forward", "instance_norm"):
        first_use._may_compile(operator, torch.float32, -1)
    assert [use.key for use in first_use._noted] == [
        ("feed_forward", "bfloat16"),
        ("instance_norm", "float32"),
    ]


def test_correct_compiled_code_goes_on(kernels, monkeypatch, tmp_path):
    x, ones = torch.arange(24.0).view(2, 3, 4), torch.ones(3)
    compiled = torch.compile(lambda x: instance_norm(x, ones, ones), backend="eager", fullgraph=True)
    compiled(x)
    monkeypatch.setattr(triton, "_is_current", lambda arguments: True)
    assert triton.on_its_device(lambda x: 7)(x) == 7
    assert kept(tmp_path) == {("instance_norm", "float32"): None}
    assert triton.on_first_run == []


def test_kernels_of_the_check_are_compiled_with_those_of_a_block(kernels, monkeypatch):
    """In the block the kernels are only requested. The first call after it checks."""
    requested, threads = [], []

    def request(*use):
        requested.append((*use, kernels.calls))
        instance_norm(
            torch.ones(1, 2, 4), torch.ones(2), torch.zeros(2)
        )  # parts of an operator request nothing

    def run_in_a_thread(function):
        threads.append(threading.Thread(target=function))
        threads[-1].start()
        threads[-1].join()

    monkeypatch.setattr(first_use, "_comparer", first_use._comparer._replace(request=request))
    monkeypatch.setattr(launching, "is_compiling_ahead", lambda: True)
    monkeypatch.setattr(launching, "compile_also", run_in_a_thread)
    normed()
    normed()
    # Before the call itself, since the largest kernels are those of checks.
    assert requested == [("instance_norm", torch.float32, torch.device("cpu"), 0)]
    assert len(threads) == 1
    assert kernels.calls == 3


def test_a_kept_verdict_needs_no_kernels_of_a_check(kernels, monkeypatch, tmp_path):
    VerdictFile(COMBINATION).add([Verdict("instance_norm", "float32", None, 0.0, "2026-11-30")])
    requested = []
    monkeypatch.setattr(
        first_use, "_comparer", first_use._comparer._replace(request=lambda *use: requested.append(use))
    )
    monkeypatch.setattr(launching, "is_compiling_ahead", lambda: True)
    monkeypatch.setattr(launching, "compile_also", lambda function: function())
    try:
        normed()
    finally:
        first_use._thread.checking = False  # this thread ran the function
    assert requested == []


def test_threads_check_once(kernels):
    barrier = threading.Barrier(4)

    def run():
        barrier.wait()
        normed()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernels.calls == 5


def add_verdicts(folder, number):
    """Write a verdict from another process."""
    file = VerdictFile(COMBINATION, folder=folder)
    for dtype in ("float32", "bfloat16"):
        with file.one_process():
            file.add([Verdict(f"operator{number}", dtype, None, 0.0, "2026-11-30")])


def test_several_processes_keep_all_verdicts(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_verdicts, args=(tmp_path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(VerdictFile(COMBINATION, folder=tmp_path).read()) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".writing")] == []


def test_too_little_memory_for_the_check_is_no_fault(kernels, tmp_path, caplog):
    def run(y):
        kernels.run = kernels.right
        raise torch.OutOfMemoryError("CUDA out of memory.")

    kernels.run = run
    assert torch.equal(normed(), expected())
    assert kept(tmp_path) == {}
    assert "used unchecked" in caplog.text


def test_modes_of_the_caller_do_not_change_the_check(kernels, tmp_path):
    x, ones = torch.arange(24.0).view(2, 3, 4), torch.ones(3)
    with torch.inference_mode(), torch.device("meta"):
        instance_norm(x, ones, ones)
    assert kept(tmp_path) == {("instance_norm", "float32"): None}


def test_verdicts_of_this_machine_are_listed(kernels, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    VerdictFile(COMBINATION).add([Verdict("mlstm", "float32", "wrong", 1.0, "2026-11-30")])
    assert [tuple(verdict) for verdict in kernel_verdicts()] == [
        ("cuda:0", "mlstm", "float32", False, "wrong", "2026-11-30")
    ]


@pytest.mark.gpu
def test_on_a_gpu_the_first_use_checks_in_seconds(monkeypatch, tmp_path, caplog):
    pytest.importorskip("triton")
    monkeypatch.setattr(verdicts, "cache_folder", lambda: tmp_path)
    forget()
    x, ones = torch.ones(2, 32, 8, 8, device="cuda"), torch.ones(32, device="cuda")
    instance_norm(x, ones, ones)
    found = [verdict for verdict in kernel_verdicts() if verdict.device == "cuda:0"]
    assert [(verdict.operator, verdict.dtype, verdict.passed) for verdict in found] == [
        ("instance_norm", "float32", True)
    ]
    assert all(check.passed for check in verify_kernels(torch.device("cuda", 0)))
    assert {verdict.operator for verdict in kernel_verdicts()} >= {"mlstm", "ss2d_scan"}
    forget()


@pytest.mark.gpu
def test_on_a_gpu_a_wrong_kernel_is_replaced(monkeypatch, tmp_path, caplog):
    pytest.importorskip("triton")
    monkeypatch.setattr(verdicts, "cache_folder", lambda: tmp_path)
    run = BACKENDS["triton"].run
    wrong = BACKENDS["triton"]._replace(run=lambda *tensors, **options: run(*tensors, **options) * 2)
    monkeypatch.setitem(BACKENDS, "triton", wrong)
    forget()
    x, ones = torch.ones(2, 32, 8, 8, device="cuda"), torch.ones(32, device="cuda")
    y = instance_norm(x, ones, ones)
    torch.testing.assert_close(y, instance_norm(x, ones, ones, backend="pytorch"))
    assert "are not used" in caplog.text
    forget()


def test_a_block_without_kernels_ends(kernels):
    with compile_ahead(2):
        pass


def branch():
    """Run a branch without the name of a backend."""
    case = verification._cases(torch.device("cpu"))["feed_forward"]
    return case.call(verification._inputs(case, torch.float32, torch.device("cpu")), None)


def test_a_branch_that_was_chosen_before_its_check_is_not_remembered(kernels, monkeypatch, tmp_path):
    """Branches remember the backends of their calls. A pass inside `compile_ahead` chooses without a check."""
    calls = []

    def run(start, *parameters, **options):
        calls.append(start.x.dtype)
        return tuple(2 * each for each in FEED_FORWARD["composed"].run(start, *parameters, **options))

    refuses = Backend(run, lambda start, *others: "float64" if start.x.dtype == torch.float64 else None)
    monkeypatch.setitem(FEED_FORWARD, "triton", refuses)
    monkeypatch.setattr(accepted_calls, "_chosen", {})
    monkeypatch.setattr(launching, "is_compiling_ahead", lambda: True)
    monkeypatch.setattr(launching, "compile_also", lambda function: None)
    branch()
    assert len(calls) == 1
    monkeypatch.setattr(launching, "is_compiling_ahead", lambda: False)
    expected = branch()
    assert kept(tmp_path)["feed_forward", "float32"] is not None
    assert len(calls) == 2  # the second one is the check
    assert torch.equal(branch(), expected)
    assert len(calls) == 2
    assert [signature[0] for signature in accepted_calls._chosen] == ["feed_forward"]


def settled_on_a_gpu(operator, first):
    """Tensors of this test are on the CPU, where no kernels need a verdict."""
    tensor = first if isinstance(first, Tensor) else first.x
    return first_use._key(operator, tensor) in first_use._usable
