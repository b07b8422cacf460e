"""The mLSTM's Triton kernels, as the launcher launches them, compile for an H100 (sm_90) without one: no spills."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# Runs in a process of its own: here the kernels are the interpreter's. What the launcher asks for, on tensors without
# data, is recorded instead of run, and compiled as Triton would for these arguments.
COMPILE = """
import json, os, re, subprocess, sys, tempfile, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

launches = []
JITFunction.run = lambda self, *args, grid, warmup, **kwargs: launches.append((self, args, kwargs))
from scanseg.ops.mlstm.gpu_launch import Launcher
from scanseg.ops.mlstm.gpu_layout import lay_out

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
OPTIONS = ("num_warps", "num_stages")

def compiled(kernel, args, kwargs):
    values = dict(zip(kernel.arg_names, args)) | {name: kwargs[name] for name in kwargs if name not in OPTIONS}
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        if parameter.is_constexpr or (not parameter.do_not_specialize and type(value) is int and value == 1):
            signature[name], constants[(index,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(index,)] = TYPES[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
batch, head, token, dim = json.loads(sys.argv[1])
dtype = getattr(torch, sys.argv[2])
q, k, v, g = (torch.empty(batch, token, head, dim, dtype=dtype, device="meta").transpose(1, 2) for _ in range(4))
igate, fgate = torch.empty(batch, token, 2 * head, device="meta").transpose(1, 2).chunk(2, dim=1)
launcher = Launcher.of(q, lay_out(token, dim, dtype), reverse=False)
planes, frames = launcher.gates(igate, fgate)
h, row_sums = launcher.outputs(q, k, v, planes, frames)
launcher.gradients(g, q, k, v, fgate, h, row_sums, planes, frames)
for kernel, args, kwargs in launches:
    result = compiled(kernel, args, kwargs)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([tools / "cuobjdump", "-res-usage", file.name], text=True)
        code = subprocess.check_output([tools / "nvdisasm", "-c", file.name], text=True)
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK):(\\d+)", usage)}
    numbers |= {"kernel": kernel.__name__, "shared": result.metadata.shared}
    instructions = re.findall(r"\\b(HGMMA|HMMA|LDGSTS)\\b", code)
    numbers |= {name: instructions.count(name) for name in ("HGMMA", "HMMA", "LDGSTS")}
    print(json.dumps(numbers))
"""

SHARED_MEMORY = 232_448
"""Bytes that a block of threads may have on an H100."""

STACK = {("key_gradients", 128): 64}
"""Bytes that may spill; at 128 features, outside the loop but for four addresses."""


def compile_kernels(shape, dtype):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, json.dumps(shape), dtype]
    result = subprocess.run(command, check=True, env=environment, timeout=280, capture_output=True, text=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 4, 6720, 128), "bfloat16"),
        ((1, 4, 15360, 64), "bfloat16"),
        ((2, 4, 840, 160), "bfloat16"),
        ((2, 2, 320, 25), "float16"),
        ((2, 2, 320, 210), "bfloat16"),
    ],
    ids=str,
)
def test_kernels_fit_an_h100(shape, dtype):
    kernels = compile_kernels(shape, dtype)
    names = {usage["kernel"] for usage in kernels}
    assert {"sum_gates", "outputs", "query_gradients", "key_gradients", "gate_gradients"} <= names
    assert ("scan_states" in names) == (shape[2] > 1024)
    for usage in kernels:
        assert usage["STACK"] <= STACK.get((usage["kernel"], shape[3]), 0), usage
        assert usage["shared"] <= SHARED_MEMORY, usage


def test_products_run_on_tensor_cores_of_hopper():
    """Those of 16-bit blocks are warp-group products fed by asynchronous copies."""
    kernels = compile_kernels((1, 4, 15360, 64), "bfloat16")
    for usage in kernels:
        if usage["kernel"] in ("state_updates", "outputs", "query_gradients", "key_gradients"):
            assert usage["HGMMA"] > 0, usage
            assert usage["HMMA"] == 0, usage
            assert usage["LDGSTS"] > 0, usage
