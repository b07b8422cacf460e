import threading
from contextlib import nullcontext

import pytest
import torch

from scanseg.errors import ScansegError, UsageError
from scanseg.messages import counted
from scanseg.runtime import device as device_module
from scanseg.runtime.device import autocast_dtype, choose_device, describe_device, warm_up
from scanseg.runtime.memory import lacks_memory, memory_for
from scanseg.runtime.versions import installed_versions


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU of a test")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")


def test_auto_takes_what_is_there(no_gpu):
    assert choose_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda(two_gpus):
    assert choose_device("auto") == torch.device("cuda")


def test_numbered_gpu(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_gpu_number_out_of_range_says_how_many(two_gpus):
    with pytest.raises(UsageError, match="'cuda:2' is not there: torch finds 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_absent_device_is_refused_with_the_reason(no_gpu, name):
    with pytest.raises(UsageError, match=f"'{name}' is not there: .*torch"):
        choose_device(name)


@pytest.mark.parametrize(
    "name", ["gpu", "", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CPU", "mps:0", "cuda:0:1"]
)
def test_unknown_device_is_refused(two_gpus, name):
    with pytest.raises(UsageError, match="is unknown; choose"):
        choose_device(name)


def test_a_gpu_wakes_while_something_else_is_done(monkeypatch):
    inside, woken = threading.Event(), []

    def wake(device):
        assert inside.wait(10)
        woken.append(device)

    monkeypatch.setattr(device_module, "_wake", wake)
    with warm_up(torch.device("cuda:1")):
        assert not woken
        inside.set()
    assert woken == [torch.device("cuda:1")]


def test_a_device_that_does_not_wake_is_told_of_by_whoever_uses_it(monkeypatch):
    asked = []

    def refuse(*size, device):
        asked.append(device)
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(torch, "zeros", refuse)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    with warm_up(torch.device("cuda")):
        pass
    assert asked == [torch.device("cuda")]


@pytest.mark.gpu
def test_a_gpu_is_ready_when_it_has_woken():
    with warm_up(torch.device("cuda")):
        pass
    assert torch.cuda.is_initialized()


def test_precision_on_the_cpu():
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu, "auto") is None
    assert autocast_dtype(cpu, "float32") is None
    assert autocast_dtype(cpu, "bfloat16") is torch.bfloat16
    with pytest.raises(UsageError, match="float16 is not for the cpu"):
        autocast_dtype(cpu, "float16")


@pytest.mark.parametrize(
    ("capability", "auto"), [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), None)]
)
def test_precision_on_a_gpu_follows_its_capability(two_gpus, monkeypatch, capability, auto):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda", 1)
    assert autocast_dtype(gpu, "auto") is auto
    assert autocast_dtype(gpu, "float32") is None
    assert autocast_dtype(gpu, "float16") is torch.float16
    if auto is None:
        with pytest.raises(UsageError, match="bfloat16 is not computed by cuda:1 \\(GPU of a test\\)"):
            autocast_dtype(gpu, "bfloat16")
    else:
        assert autocast_dtype(gpu, "bfloat16") is torch.bfloat16


def test_devices_in_words(two_gpus):
    assert describe_device(torch.device("cpu")) == f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    assert describe_device(torch.device("cuda", 1)) == "cuda:1 (GPU of a test)"
    assert describe_device(torch.device("mps")) == "mps"


def test_versions():
    versions = installed_versions()
    assert list(versions) == ["scanseg", "python", "torch", "numpy", "platform"]
    assert versions["torch"] == torch.__version__


LACKS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "context": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
}


@pytest.mark.parametrize("error", LACKS.values(), ids=LACKS)
def test_a_network_that_finds_no_place_on_a_gpu_is_told_of_in_one_line(error):
    assert lacks_memory(error)
    with pytest.raises(ScansegError) as caught, memory_for("the network of m", device=torch.device("cuda:1")):
        raise error
    assert str(caught.value) == (
        "the memory of cuda:1 does not suffice for the network of m; end what else uses it, or choose another device "
        "(--device)"
    )


def test_the_host_is_named_where_it_is_the_one_that_lacks_memory():
    with (
        pytest.raises(ScansegError, match="memory of the host"),
        memory_for("x", device=torch.device("cuda")),
    ):
        torch.empty(10**15)


def test_other_errors_of_a_device_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), memory_for("x", device=torch.device("cpu")):
        raise RuntimeError("a bug")


def test_unknown_precision():
    with pytest.raises(
        UsageError, match=r"precision 'int8' is unknown; choose auto, float32, bfloat16, float16"
    ):
        autocast_dtype(torch.device("cpu"), "int8")
