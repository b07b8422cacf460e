"""Arrays that go to a device together arrive as they were."""

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


def agree(tensors):
    for array, tensor in zip(ARRAYS, tensors, strict=True):
        assert tensor.shape == array.shape
        assert tensor.dtype == torch.from_numpy(np.empty(0, array.dtype)).dtype
        assert (tensor.cpu().numpy() == array).all()


def test_what_is_packed_comes_out_again():
    packed = pack(ARRAYS, pinned=False)

    agree(unpack(packed.clone(), ARRAYS))
    assert packed.numel() <= sum(array.nbytes + 16 for array in ARRAYS)


def test_arrays_arrive_on_the_cpu():
    agree(to_device(*ARRAYS, device=torch.device("cpu")))


@pytest.mark.gpu
def test_arrays_arrive_on_a_gpu_though_their_memory_is_written_again():
    """The copy is not waited for: it must not read what was put into its memory later."""
    device = torch.device("cuda")
    torch.cuda._sleep(100_000_000)
    first, *_ = [
        to_device(*(np.full_like(array, number) for array in ARRAYS) if number else ARRAYS, device=device)
        for number in range(20)
    ]

    agree(first)
