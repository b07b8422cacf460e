"""Files that cannot be written are named in the error, whichever library writes them."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from scanseg.files import written_whole
from scanseg.models.tensors import write_tensors
from scanseg.preprocessing.compressed import write_array

resource = pytest.importorskip("resource", reason="limits of POSIX")


@contextmanager
def files_no_longer_than(size):
    """Let the system refuse longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    with (
        pytest.raises(OSError, match="cannot be written") as error,
        files_no_longer_than(1000),
        written_whole(path) as temporary,
    ):
        write_tensors({"weight": torch.randn(10000)}, temporary)
    assert error.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_arrays(tmp_path, rng):
    path = tmp_path / "image.b2nd"
    with (
        pytest.raises(OSError, match=r"cannot be written .*\. Check whether the disk is full") as error,
        files_no_longer_than(1000),
    ):
        write_array(path, rng.random((1, 32, 128, 128)).astype(np.float32))
    assert error.value.filename == str(path)
