"""Networks in ONNX format on the CPU, by onnxruntime or OpenVINO."""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float32

from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.messages import shortened

Runtime = Literal["onnxruntime", "openvino"]
"""Library that computes exported networks."""

_LONGEST_REASON = 300
"""Longest reason of a library that is quoted in a message, in characters."""


class Session(Protocol):
    """A network that is ready to run."""

    @property
    def input_shapes(self) -> Sequence[Sequence[object]]:
        """Shape of each input. A free axis is a text or `None`."""

    def run(self, windows: Float32[np.ndarray, "batch channel *patch"]) -> np.ndarray:
        """Return the first output."""


class _OnnxRuntime:
    """A network by onnxruntime. Several threads may share it."""

    def __init__(self, library: ModuleType, content: bytes, *, num_threads: int) -> None:
        options = library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as for PyTorch
        options.log_severity_level = 4  # errors raise an exception
        self._session = library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        self.input_shapes = [each.shape for each in inputs]
        self._names = [each.name for each in inputs]

    def run(self, windows: Float32[np.ndarray, "batch channel *patch"]) -> np.ndarray:
        return self._session.run(None, {self._names[0]: windows})[0]


class _OpenVINO:
    """A network by OpenVINO. Threads run it one after the other."""

    def __init__(self, library: ModuleType, content: bytes, *, num_threads: int) -> None:
        core = _openvino_core(library)
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "INFERENCE_PRECISION_HINT": "f32",  # some processors would default to 16 bits
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(core.read_model(content), "CPU", settings)
        self.input_shapes = [
            [size.get_length() if size.is_static else None for size in each.partial_shape]
            for each in compiled.inputs
        ]
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()

    def run(self, windows: Float32[np.ndarray, "batch channel *patch"]) -> np.ndarray:
        with self._lock:
            self._request.infer([windows])
            return self._request.get_output_tensor(0).data.copy()


@cache
def _openvino_core(library: ModuleType) -> Any:
    """Return the OpenVINO core of this process.

    It lives as long as the process. At its first compilation it gives the thread another stack for signal handlers, and
    at its end it releases the memory. If it ended in another thread, the next signal (Ctrl-C) would end the process
    with a segmentation fault.
    """
    return library.Core()


_SESSIONS: dict[Runtime, Callable[..., Session]] = {"onnxruntime": _OnnxRuntime, "openvino": _OpenVINO}


def import_runtime(runtime: Runtime) -> ModuleType:
    """Import the library of a runtime.

    Args:
        runtime: Name of the library.

    Raises:
        UsageError: The name is unknown, or the library is not installed.
    """
    if runtime not in _SESSIONS:
        raise UsageError(f"runtime {runtime!r} is unknown. Choose {' or '.join(_SESSIONS)}.")
    try:
        return import_module(runtime)
    except ImportError as error:
        raise UsageError(
            f"runtime {runtime}: expected the package {runtime}, which cannot be imported ({error}). "
            f"Run: pip install {runtime}"
        ) from error


def open_session(
    content: bytes, *, source: str, runtime: Runtime, num_threads: int, input_shape: Sequence[int]
) -> Session:
    """Prepare a network.

    Args:
        content: Content of the ONNX file.
        source: Its name, for messages.
        runtime: Library of the computation.
        num_threads: Threads of a pass.
        input_shape: Shape of a window: channels and voxels.

    Raises:
        InputError: The content is damaged, has operators that the library lacks, or has other inputs.
        UsageError: The library is not installed.
    """
    library = import_runtime(runtime)
    try:
        session = _SESSIONS[runtime](library, content, num_threads=num_threads)
    except Exception as error:  # onnxruntime and OpenVINO have no common class of errors
        raise InputError(
            f"{source}: {runtime} cannot read the network ({_reason(error)}). Export the model again."
        ) from error
    shapes = [tuple(shape) for shape in session.input_shapes]
    if len(shapes) != 1 or shapes[0][1:] != tuple(input_shape):
        raise InputError(
            f"{source}: expected one input of shape {('batch', *input_shape)}, got {shapes}. Export the model again."
        )
    return session


def run_session(
    session: Session, windows: np.ndarray, *, source: str, runtime: Runtime
) -> Float32[np.ndarray, "batch output *patch"]:
    """Return the logits of windows.

    Args:
        session: The network.
        windows: Windows (batch, channel, *patch).
        source: Name of its file, for messages.
        runtime: Library of the computation.

    Raises:
        MemoryError: The memory of the host ran out.
        ScansegError: The library failed.
    """
    try:
        logits: Any = session.run(np.ascontiguousarray(windows, dtype=np.float32))
    except Exception as error:  # see open_session
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            raise MemoryError(str(error)) from error
        raise ScansegError(
            f"{source}: {runtime} cannot run the network ({_reason(error)}). Export the model again, or choose "
            "another --runtime."
        ) from error
    return logits


def _reason(error: Exception) -> str:
    """Return the reason of a library in one line."""
    return shortened(" ".join(str(error).split()), _LONGEST_REASON)
