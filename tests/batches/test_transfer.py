"""Copies of several arrays to a device at once."""

import numpy as np
import pytest
import torch

from scanseg.batches.transfer import pack, to_device, unpack

ARRAYS = (
    np.arange(7, dtype=np.int64).reshape(7, 1),
    np.array([[True, False, True]]),
    np.linspace(0, 1, 5, dtype=np.float32),
    np.empty((0, 3), dtype=np.float32),
    np.arange(12).reshape(3, 4)[:, ::-2],
    np.arange(3, dtype=np.uint8),
)


def assert_equal_arrays(tensors):
    for array, tensor in zip(ARRAYS, tensors, strict=True):
        assert tensor.shape == array.shape
        assert tensor.dtype == torch.from_numpy(np.empty(0, array.dtype)).dtype
        assert (tensor.cpu().numpy() == array).all()


def test_unpacking_returns_the_packed_arrays():
    packed = pack(ARRAYS, pinned=False)

    assert_equal_arrays(unpack(packed.clone(), ARRAYS))
    assert packed.numel() <= sum(array.nbytes + 16 for array in ARRAYS)


def test_arrays_are_copied_to_the_cpu():
    assert_equal_arrays(to_device(*ARRAYS, device=torch.device("cpu")))


@pytest.mark.gpu
def test_later_writes_do_not_change_asynchronous_copies():
    """The host does not wait for a copy, so its buffer must not be reused too early."""
    device = torch.device("cuda")
    torch.cuda._sleep(100_000_000)
    first, *_ = [
        to_device(*(np.full_like(array, number) for array in ARRAYS) if number else ARRAYS, device=device)
        for number in range(20)
    ]

    assert_equal_arrays(first)
