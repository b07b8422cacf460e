"""The mLSTM's Triton kernels, with the arguments of the launcher, compile for an H100 (sm_90) without spills."""

import re

import pytest

from .machine_code import compiled_kernels

pytest.importorskip("triton")

# Runs in a separate process, because in this one the kernels belong to the interpreter. The launches, on tensors
# without data, are recorded instead of run, and compiled for their arguments in the same way as by Triton.
COMPILE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

launches = []
JITFunction.run = lambda self, *args, grid, warmup, **kwargs: launches.append((self, args, kwargs))
from scanseg.ops.mlstm.triton_launch import Launcher
from scanseg.ops.mlstm.triton_layout import lay_out
from scanseg.ops.mlstm.triton_tile_launch import TileLauncher

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

def keep(number, shape, dtype):
    batch, head, token, dim = shape
    q, k, v, g = (torch.empty(batch, token, head, dim, dtype=dtype, device="meta").transpose(1, 2) for _ in range(4))
    igate, fgate = torch.empty(batch, token, 2 * head, device="meta").transpose(1, 2).chunk(2, dim=1)
    layout = lay_out(token, dim, dtype)
    launcher = (TileLauncher if layout.tiled else Launcher).of(q, layout, reverse=False)
    launches.clear()
    planes, frames = launcher.gates(igate, fgate)
    states = launcher.states(k, v, planes, frames)
    h, row_sums = launcher.outputs(q, k, v, planes, frames, states)
    launcher.gradients(g, q, k, v, fgate, h, row_sums, planes, frames, states)
    for place, (kernel, args, kwargs) in enumerate(launches):
        result = compiled(kernel, args, kwargs)
        file = Path(sys.argv[1]) / f"{number}-{kernel.__name__}-{place}.cubin"
        file.write_bytes(result.asm["cubin"])
        file.with_suffix(".json").write_text(json.dumps({"shared": result.metadata.shared}))

for number, (shape, dtype) in enumerate(CASES):
    keep(number, shape, getattr(torch, dtype))
"""

CASES = [
    ((2, 4, 6720, 128), "bfloat16"),
    ((1, 4, 15360, 64), "bfloat16"),
    ((2, 4, 840, 160), "bfloat16"),
    ((2, 2, 320, 25), "float16"),
    ((2, 2, 320, 210), "bfloat16"),
    ((1, 2, 2048, 64), "float16"),
]

SHARED_MEMORY = 232_448
"""Maximum number of bytes of a block of threads on an H100."""

STACK = {
    ("key_gradients", 128): 64,
    ("query_gradients", 25): 16,
    ("gate_gradients", 128): 16,
    ("gate_gradients", 64): 16,
    ("tile_gradients", 128): 600,
    ("tile_gradients", 64): 288,
    ("tile_state_gradients", 128): 64,
    ("tile_state_gradients", 64): 128,
}
"""Bytes that may spill. With 128 features those of `key_gradients` are outside the loop except for four addresses. Rows
of 25 features are loaded one by one. The gates spill only with Triton 3.6. `tile_gradients` keeps operands of three
gradients (464 and 40 bytes with Triton 3.6, the rest with 3.9). It was faster so than with smaller programs."""


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Return the launches of each case, as pairs of a kernel's name and the kernel."""
    kernels = compiled_kernels(f"CASES = {CASES}\n{COMPILE}", tmp_path_factory.mktemp("cubins"))
    found = [[] for _ in CASES]
    for file, kernel in kernels.items():
        number, name, _ = file.split("-")
        found[int(number)].append((name, kernel))
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_kernels_fit_an_h100(launches, number):
    (_, _, token, dim), dtype = CASES[number]
    names = {name for name, _ in launches[number]}
    if dtype == "bfloat16" and token > 1024:
        assert {"tile_states", "outputs", "tile_gradients", "tile_gate_gradients"} <= names
    else:
        assert {"sum_gates", "outputs", "query_gradients", "key_gradients", "gate_gradients"} <= names
        assert ("scan_states" in names) == (token > 1024)
    for name, kernel in launches[number]:
        assert kernel.usage["STACK"] <= STACK.get((name, dim), 0), kernel
        assert kernel.usage["shared"] <= SHARED_MEMORY, kernel


def test_products_run_on_tensor_cores_of_hopper(launches):
    """Products of 16-bit blocks are warp-group products with asynchronous copies."""
    for number, products in (
        (2, {"outputs", "query_gradients", "key_gradients"}),
        (1, {"tile_updates", "tile_states", "tile_upstream", "tile_gradients"}),
    ):
        found = [(name, kernel) for name, kernel in launches[number] if name in products]
        assert {name for name, _ in found} == products
        copies = {"LDGSTS"} if "outputs" in products else set()
        for name, kernel in found:
            code = kernel.code
            instructions = {word for line in code for word in re.findall(r"\b(HGMMA|HMMA|LDGSTS)\b", line)}
            assert instructions == {"HGMMA"} | copies, name
