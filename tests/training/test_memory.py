"""Too little memory is explained with the values that decide how much is needed."""

import numpy as np
import pytest
import torch

from scanseg.errors import ScansegError
from scanseg.runtime.memory import CaptureMemoryError, is_memory_error
from scanseg.training.step import TrainingStep


def error_of(allocate):
    """Return what is raised where there is no such memory."""
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate(10**15)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        CaptureMemoryError(),
        error_of(torch.empty),
        error_of(np.empty),
    ],
    ids=["gpu", "graph", "torch", "numpy"],
)
def test_a_batch_that_does_not_fit(train, monkeypatch, error):
    def step(self, batch, *, lr, encoder_frozen):
        raise error

    monkeypatch.setattr(TrainingStep, "run", step)
    with pytest.raises(ScansegError, match=r"batch of 2 patches of \(16, 16\) voxels") as caught:
        train()

    assert "--batch-size" in str(caught.value)
    assert ("--set training.cuda_graph=false" in str(caught.value)) == isinstance(error, CaptureMemoryError)


def test_other_errors_of_a_step_stay_what_they_are(train, monkeypatch):
    def step(self, batch, *, lr, encoder_frozen):
        raise RuntimeError("a bug")

    monkeypatch.setattr(TrainingStep, "run", step)
    with pytest.raises(RuntimeError, match="a bug"):
        train()


def test_a_network_that_does_not_fit(train, monkeypatch):
    def place_network(network, device):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("scanseg.training.step.place_network", place_network)
    with pytest.raises(
        ScansegError, match=r"^not enough memory on cpu .* the network and its training state"
    ):
        train()


def test_cases_that_do_not_fit(train, monkeypatch):
    def load_cases(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("scanseg.training.case_storage.load_into_memory", load_cases)
    with pytest.raises(ScansegError, match=r"all cases.*--set training\.case_storage=disk"):
        train()


def test_a_capture_that_ends_badly_for_want_of_memory_is_told_from_others():
    error = RuntimeError("capture ended")
    assert not is_memory_error(error)
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_memory_error(error)
