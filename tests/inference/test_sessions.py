"""Failures of a runtime end in one message."""

import numpy as np
import pytest

from scanseg.errors import ScansegError, UsageError
from scanseg.inference.sessions import import_runtime, run_session

WINDOWS = np.zeros((1, 1, 4, 4), dtype=np.float32)


class Failing:
    """Session whose passes raise an error."""

    input_shapes = (("batch", 1, 4, 4),)

    def __init__(self, error):
        self.error = error

    def run(self, windows):
        raise self.error


def test_a_failed_pass_names_file_and_runtime():
    session = Failing(ValueError("Non-zero status code\nwhile running Conv"))
    with pytest.raises(ScansegError, match=r"^a\.onnx: openvino cannot run the network") as caught:
        run_session(session, WINDOWS, source="a.onnx", runtime="openvino")
    assert "(Non-zero status code while running Conv)" in str(caught.value)


@pytest.mark.parametrize(
    "error", [MemoryError("no memory"), RuntimeError("Failed to allocate memory for requested buffer")]
)
def test_too_little_memory_is_recognized(error):
    with pytest.raises(MemoryError):
        run_session(Failing(error), WINDOWS, source="a.onnx", runtime="onnxruntime")


def test_unknown_runtimes_are_refused():
    with pytest.raises(UsageError, match=r"runtime 'tensorrt' is unknown\. Choose onnxruntime or openvino"):
        import_runtime("tensorrt")
