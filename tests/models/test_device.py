import pytest
import torch

from scanseg.errors import UsageError
from scanseg.models.device import autocast_dtype, choose_device, describe_device
from scanseg.models.versions import installed_versions


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


def test_auto_takes_what_is_there(no_gpu):
    assert choose_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda(two_gpus):
    assert choose_device("auto") == torch.device("cuda")


def test_numbered_gpu(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_gpu_number_out_of_range_says_how_many(two_gpus):
    with pytest.raises(UsageError, match="'cuda:2' is not there: there are 2 GPUs"):
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
    assert describe_device(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"
    assert describe_device(torch.device("cuda", 1)) == "cuda:1 (GPU of a test)"
    assert describe_device(torch.device("mps")) == "mps"


def test_versions():
    versions = installed_versions()
    assert list(versions) == ["scanseg", "python", "torch", "numpy", "platform"]
    assert versions["torch"] == torch.__version__
