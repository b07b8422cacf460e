"""Failures of a runtime end in one message."""

import subprocess
import sys

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


SIGNAL_AFTER_USE = """
import gc, signal, threading
import numpy as np
import onnx
from onnx import TensorProto, helper
from scanseg.inference.sessions import open_session

shape = ["batch", 1, 4, 4]
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "network", values[:1], values[1:])
network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
content = network.SerializeToString()
options = {"source": "a.onnx", "runtime": "openvino", "num_threads": 1, "input_shape": (1, 4, 4)}
sessions = [open_session(content, **options)]
sessions[0].run(np.zeros((1, 1, 4, 4), np.float32))

def release():
    sessions.clear()
    gc.collect()

thread = threading.Thread(target=release)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda number, frame: print("stopped"))
signal.raise_signal(signal.SIGINT)
"""


def test_signals_are_handled_after_a_thread_has_released_an_openvino_network():
    for package in ("onnx", "openvino"):
        pytest.importorskip(package)
    words = [sys.executable, "-c", SIGNAL_AFTER_USE]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr
