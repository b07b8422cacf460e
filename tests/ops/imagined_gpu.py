"""A simulated H100: kernels are compiled for sm_90, and launching them does nothing.

This is a separate program, `python imagined_gpu.py NUM_THREADS`, because kernels in the process of a test belong to the
interpreter. It runs the kernels of a small network through `compile_ahead` and prints the compiled and launched
kernels as JSON.
"""

import json
import sys
import threading

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from scanseg.ops import instance_norm, mlstm
from scanseg.ops._support import triton as triton_support
from scanseg.ops._support.compile_processes import CompileProcesses
from scanseg.ops._support.launching import compile_ahead, compile_also, launch

launched, compiled, launchers, in_processes = [], [], [], []


class Loader:
    """The interface of a device's library."""

    def load_binary(self, *arguments):
        return 1, 1, 32, 0, 1024

    def get_device_properties(self, device):
        return {"max_shared_mem": 232_448}

    def unload_module(self, module):
        pass


class H100:
    """The interface of a driver."""

    utils = Loader()

    def launcher_cls(self, source, metadata):
        launchers.append((source.name, threading.get_ident()))
        return lambda *arguments: launched.append((source.name, threading.get_ident()))

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def note(*, repr, **others):
    compiled.append(repr)


def compile_elsewhere(processes, request):
    """Note whether another process compiled a kernel."""
    in_processes.append(original(processes, request))
    return in_processes[-1]


original, CompileProcesses.compile = CompileProcesses.compile, compile_elsewhere
driver.set_active(H100())
triton.knobs.runtime.jit_post_compile_hook = note
# The tensors are on the CPU. Triton treats them as tensors of a GPU.
triton_support.refuses.__code__ = (lambda *tensors: None).__code__


@triton.jit
def write(target, number, SIZE: tl.constexpr):
    """Write a number."""
    tl.store(target + tl.arange(0, SIZE), number)


@triton.jit
def write_too_much(target, SIZE: tl.constexpr):
    """Use a block size that is not a power of two, which does not compile."""
    tl.store(target + tl.arange(0, SIZE), 1.0)


def learn():
    """Run two operators forward and backward, the same kernels twice."""
    for _ in range(2):
        x = torch.ones(2, 32, 40, 8, 8, requires_grad=True)
        x = x.to(memory_format=torch.channels_last_3d)
        y = instance_norm(x, torch.ones(32), torch.zeros(32), backend="triton")
        q = torch.ones(2, 2, 64, 32, requires_grad=True)
        gates = torch.zeros(2, 2, 64)
        (y.sum() + mlstm(q, q, q, gates, gates, backend="triton").sum()).backward()


def elsewhere():
    """Launch a kernel in another thread."""
    thread = threading.Thread(target=lambda: launch(write, (1,))(torch.ones(16), 3.0, SIZE=16))
    thread.start()
    thread.join()


def compilation_error():
    """Launch an invalid kernel, which was not compiled ahead, and return the error message."""
    with compile_ahead(2):
        launch(write_too_much, (1,))(torch.ones(16), SIZE=12)
    try:
        launch(write_too_much, (1,))(torch.ones(16), SIZE=12)
    except Exception as error:
        return str(error)
    return None


def main():
    """Print the compiled and launched kernels."""
    reported = []
    with compile_ahead(
        int(sys.argv[1]), backward_on=torch.device("cpu"), progress=lambda *counts: reported.append(counts)
    ):
        learn()
        compile_also(learn)
        in_block = len(launched)
        elsewhere()
    built = list(launchers)
    launched_elsewhere = [name for name, thread in launched if thread != threading.get_ident()]
    ahead, launched[:] = list(compiled), []
    learn()
    result = {
        "compiled": ahead,
        "launched_in_block": in_block,
        "launched_elsewhere": launched_elsewhere,
        "reported": reported,
        "compiled_later": compiled[len(ahead) :],
        "launched_later": [name for name, _ in launched],
        "error": compilation_error(),
        "in_processes": in_processes,
        "launchers": {
            "in_block": [name for name, _ in built if name != "write"],
            "on_main_thread": [name for name, thread in built if thread == threading.get_ident()],
        },
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
