"""The kernels around the scans compile for an H100 (sm_90), without one: no spills, few instructions."""

import pytest

from .machine_code import compiled_kernels

pytest.importorskip("triton")

# Runs in a separate process, because in this one the kernels belong to the interpreter.
COMPILE = """
import sys, warnings
warnings.filterwarnings("ignore")
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scanseg.ops.channel_norm import triton_kernels as norm
from scanseg.ops.channel_norm.triton_backend import _block
from scanseg.ops.depthwise import triton_kernels as depthwise
from scanseg.ops.depthwise.triton_launch import BACKWARD, FORWARD
from scanseg.ops.normed_depthwise import triton_kernels as normed
import torch

MAPS = {"x_ptr", "out_ptr", "pre_ptr", "grad_ptr", "grad_x_ptr"}
MAPS |= {"added_ptr", "sum_ptr", "grad_sum_ptr", "grad_added_ptr"}

def compiled(kernel, constants, warps, map_type):
    def type_of(name):
        if name in constants:
            return "constexpr"
        if name in MAPS:
            return map_type
        return "*fp32" if name.endswith("_ptr") else "fp32" if name == "eps" else "i32"
    signature = {name: type_of(name) for name in kernel.arg_names}
    aligned = [index for index, name in enumerate(kernel.arg_names) if name.endswith("_ptr") or name == "channels"]
    attributes = {(index,): [["tt.divisibility", 16]] for index in aligned if kernel.arg_names[index] not in constants}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["cubin"]

folder = sys.argv[1]
def keep(name, *arguments):
    with open(f"{folder}/{name}.cubin", "wb") as file:
        file.write(compiled(*arguments))

def convolution(direction, size, around, map_type):
    tile = (FORWARD if direction == "forward" else BACKWARD)[size]
    constants = {
        "K": size,
        "INPUT": "norm_relu" if around == "normed" else "none",
        "HAS_BIAS": around == "normed",
        "SILU": around == "silu",
        "RESIDUAL": around == "multi-scale",
        "GROUP": tile.group,
        "BLOCK_COLUMNS": tile.vector * 32 * tile.warps // tile.channels,
        "BLOCK_CHANNELS": tile.channels,
        "ACC": tl.float32,
    }
    if direction == "backward" and around == "multi-scale":
        constants["INPUT"] = "gelu"
    if direction == "forward":
        constants["SAVE_PRE"] = around == "silu"
    kernel = depthwise.convolve_maps if direction == "forward" else depthwise.convolve_maps_gradients
    keep(f"{direction}-{size}-{around}-{map_type[1:]}", kernel, constants, tile.warps, map_type)

for size, around in ((3, "silu"), (3, "normed"), (5, "multi-scale")):
    convolution("forward", size, around, "*bf16")
    convolution("backward", size, around, "*bf16")
convolution("backward", 5, "multi-scale", "*fp32")
convolution("backward", 7, "multi-scale", "*bf16")

block_rows, block_channels, warps = _block(384)
tile = {"channels": 384, "ADDED": True, "SCALED": True, "FACTOR": 1, "BLOCK_ROWS": block_rows}
tile |= {"BLOCK_CHANNELS": block_channels, "ACC": tl.float32}
keep("norm", norm.normalise_rows, tile, warps, "*bf16")
keep("norm-gradients", norm.normalise_rows_gradients, {**tile, "GRAD_ADDED": True}, warps, "*bf16")

tile = {"BLOCK_ROWS": 32, "BLOCK_CHANNELS": 64, "ACC": tl.float32}
keep("sums", normed.sum_shares, tile, 4, "*bf16")
keep("statistics-gradient", normed.add_statistics_gradient, tile, 4, "*bf16")
"""

LONGEST = {"forward-3-normed-bf16": 800, "backward-3-normed-bf16": 1900, "forward-5-multi-scale-bf16": 1000}
"""Instructions of whole kernels; measured 640, 1490 and 750."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The compiled kernels, by name."""
    return compiled_kernels(COMPILE, tmp_path_factory.mktemp("cubins"))


def test_nothing_spills(kernels):
    assert len(kernels) == 12
    found = {name: (kernel.usage["STACK"], kernel.usage["LOCAL"]) for name, kernel in kernels.items()}
    assert {name: spilt for name, spilt in found.items() if any(spilt)} == {}


def test_loads_of_16_bit_maps_are_vectors(kernels):
    """Four neighbouring channels of a 3x3 convolution are one load of 8 bytes."""
    loads = [line for line in kernels["forward-3-normed-bf16"].code if "LDG" in line]
    assert sum("LDG.E.64" in line for line in loads) >= 9
    assert not [line for line in loads if ".U16" in line]


def test_instructions_stay_few(kernels):
    lengths = {name: len(kernels[name].code) for name in LONGEST}
    assert {name: length for name, length in lengths.items() if length > LONGEST[name]} == {}
