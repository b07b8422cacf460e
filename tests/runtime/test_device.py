import subprocess
import sys
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


def test_cpu_is_always_available():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")


def test_auto_takes_the_cpu_without_a_gpu(no_gpu):
    assert choose_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda(two_gpus):
    assert choose_device("auto") == torch.device("cuda")


def test_numbered_gpu(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_error_of_a_gpu_number_out_of_range_holds_the_number_of_gpus(two_gpus):
    with pytest.raises(UsageError, match="'cuda:2' is not available: torch finds 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_absent_device_is_refused_with_the_reason(no_gpu, name):
    with pytest.raises(UsageError, match=f"'{name}' is not available: .*torch"):
        choose_device(name)


@pytest.mark.parametrize(
    "name", ["gpu", "", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CPU", "mps:0", "cuda:0:1"]
)
def test_unknown_device_is_refused(two_gpus, name):
    with pytest.raises(UsageError, match=r"is unknown\. Choose auto, cpu"):
        choose_device(name)


def test_libraries_of_a_gpu_load_while_the_block_runs(monkeypatch):
    inside, loaded = threading.Event(), []

    def load(device):
        assert inside.wait(10)
        loaded.append(device)

    def import_compiler():
        assert inside.wait(10)
        loaded.append("compiler")

    monkeypatch.setattr(device_module, "_load_libraries", load)
    monkeypatch.setattr(device_module, "_import_compiler", import_compiler)
    with warm_up(torch.device("cuda:1")):
        assert not loaded
        inside.set()
    assert set(loaded) == {torch.device("cuda:1"), "compiler"}


def test_the_compiler_is_imported_in_the_warm_up():
    code = (
        "import sys, torch; from scanseg.runtime import warm_up\n"
        "with warm_up(torch.device('cuda')): pass\n"
        "print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "True", found.stderr


def test_errors_of_the_warm_up_are_ignored(monkeypatch):
    asked = []

    def refuse(*size, device):
        asked.append(device)
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(torch, "zeros", refuse)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(device_module, "_import_compiler", lambda: None)
    with warm_up(torch.device("cuda")):
        pass
    assert asked == [torch.device("cuda")]


@pytest.mark.gpu
def test_a_gpu_is_initialized_after_the_warm_up():
    with warm_up(torch.device("cuda")):
        pass
    assert torch.cuda.is_initialized()


def test_precision_on_the_cpu():
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu, "auto") is None
    assert autocast_dtype(cpu, "float32") is None
    assert autocast_dtype(cpu, "bfloat16") is torch.bfloat16
    with pytest.raises(UsageError, match="float16 is not supported by cpu"):
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
        with pytest.raises(UsageError, match="bfloat16 is not supported by cuda:1 \\(GPU of a test\\)"):
            autocast_dtype(gpu, "bfloat16")
    else:
        assert autocast_dtype(gpu, "bfloat16") is torch.bfloat16


def test_descriptions_of_devices(two_gpus):
    assert describe_device(torch.device("cpu")) == f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    assert describe_device(torch.device("cuda", 1)) == "cuda:1 (GPU of a test)"
    assert describe_device(torch.device("mps")) == "mps"


def test_versions():
    versions = installed_versions()
    assert list(versions) == ["scanseg", "python", "torch", "numpy", "platform"]
    assert versions["torch"] == torch.__version__


MEMORY_ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "context": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
}


@pytest.mark.parametrize("error", MEMORY_ERRORS.values(), ids=MEMORY_ERRORS)
def test_too_little_gpu_memory_for_a_network_is_explained_in_one_line(error):
    assert lacks_memory(error)
    with pytest.raises(ScansegError) as caught, memory_for("the network of m", device=torch.device("cuda:1")):
        raise error
    assert str(caught.value) == (
        "not enough memory on cuda:1 for the network of m. Close other programs that use it, or choose another device "
        "(--device)."
    )


def test_error_names_the_host_if_its_memory_is_too_small():
    with (
        pytest.raises(ScansegError, match="memory on the host"),
        memory_for("x", device=torch.device("cuda")),
    ):
        torch.empty(10**15)


def test_other_errors_of_a_device_propagate_unchanged():
    with pytest.raises(RuntimeError, match="a bug"), memory_for("x", device=torch.device("cpu")):
        raise RuntimeError("a bug")


def test_unknown_precision():
    with pytest.raises(
        UsageError, match=r"precision 'int8' is unknown\. Choose auto, float32, bfloat16, float16"
    ):
        autocast_dtype(torch.device("cpu"), "int8")
