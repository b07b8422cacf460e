"""Settings of PyTorch's arithmetic for training steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_arithmetic(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Select a GPU, benchmark its convolutions and allow TF32.

    The settings are restored afterwards.

    Args:
        device: Any device. Other devices than GPUs with CUDA have no settings.
        allow_tf32: Compute products and convolutions of float32 in TF32.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, allow_tf32, allow_tf32
    try:
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
