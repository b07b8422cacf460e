"""The kernels of the loss compile for an H100 (sm_90), without one: no spills, few registers and instructions."""

import pytest

from .machine_code import compiled_kernels

pytest.importorskip("triton")

# Runs in a separate process, because in this one the kernels belong to the interpreter.
COMPILE = """
import sys, warnings
warnings.filterwarnings("ignore")
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scanseg.ops.segmentation_sums import triton_kernels as kernels
from scanseg.ops.segmentation_sums.triton_launch import COMBINE, GRADIENT, SUM, Form, tile_options

TYPES = {"logits": "*bf16", "grad_logits": "*bf16", "label_map": "*u8"}
WHOLE = ("num_voxels", "tiles_per_chunk", "lines_per_row", "num_lines")

def keep(name, kernel, num_warps, **constants):
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    kinds = {key: TYPES.get(key, "i32" if key in WHOLE else "*fp32") for key in kernel.arg_names}
    signature = {key: "constexpr" if key in constants else kinds[key] for key in kernel.arg_names}
    aligned = [i for i, key in enumerate(kernel.arg_names) if key == "num_voxels" or signature[key].startswith("*")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", 90, 32)
    cubin = triton.compile(source, target=target, options={"num_warps": num_warps}).asm["cubin"]
    with open(f"{sys.argv[1]}/{name}.cubin", "wb") as file:
        file.write(cubin)

def keep_all(name, form, num_outputs, channels_last=True):
    constants = form.constants(torch.empty(1, num_outputs, 1), channels_last=channels_last)
    constants |= {"OF_DICE": True, "OF_CROSS_ENTROPY": True, "OVER_BATCH": True, "FIRST_OUTPUT": 1}
    for kernel, tile in ((kernels.sums_kernel, SUM), (kernels.gradient_kernel, GRADIENT)):
        options = constants | tile_options(tile, num_outputs, torch.bfloat16)
        keep(f"{kernel.fn.__name__}-{name}", kernel, options.pop("num_warps"), **options)
    options = constants | tile_options(COMBINE, num_outputs, torch.bfloat16)
    options["BLOCK_K"] = options.pop("BLOCK_V")
    keep(f"combine-{name}", kernels.combine_kernel, options.pop("num_warps"), **options)

classes = Form(None, None, False, None, False)
for num_outputs in (3, 14, 16, 133, 256):
    keep_all(f"{num_outputs}", classes, num_outputs)
keep_all("14-first", classes, 14, channels_last=False)
keep_all("14-weighted", Form(None, (0.5, *[2.0] * 13), False, 14, True), 14)
keep_all("3-regions", Form((6, 12, 8), (0.25, 0.5, 0.25), True, 4, False), 3)
"""

MOST_REGISTERS = {"sums_kernel": 128, "gradient_kernel": 64, "combine": 96}
"""Measured: 113 (regions), 48 and 80, the larger of Triton 3.6 and 3.9."""
MOST_INSTRUCTIONS = {"sums_kernel-14": 900, "gradient_kernel-14": 480, "gradient_kernel-16": 330}
"""Instructions of whole kernels, with eight logits per thread at a time. Measured 752, 400 and 272."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The compiled kernels, by name."""
    return compiled_kernels(COMPILE, tmp_path_factory.mktemp("cubins"))


def test_nothing_spills(kernels):
    assert len(kernels) == 24
    found = {name: (kernel.usage["STACK"], kernel.usage["LOCAL"]) for name, kernel in kernels.items()}
    assert {name: spilt for name, spilt in found.items() if any(spilt)} == {}


def test_registers_leave_room_for_four_programs_and_more(kernels):
    found = {name: kernel.usage["REG"] for name, kernel in kernels.items()}
    assert {n: number for n, number in found.items() if number > MOST_REGISTERS[n.partition("-")[0]]} == {}


def test_adjacent_logits_are_read_together(kernels):
    """14 outputs of 16 bits are pairs of 4 bytes, 16 are vectors of 16 bytes."""
    for kernel in ("sums_kernel", "gradient_kernel"):
        assert any("LDG.E.128" in line for line in kernels[f"{kernel}-16"].code)
        assert not [line for line in kernels[f"{kernel}-14"].code if ".U16" in line]


def test_instructions_stay_few(kernels):
    lengths = {name: len(kernels[name].code) for name in MOST_INSTRUCTIONS}
    assert {name: length for name, length in lengths.items() if length > MOST_INSTRUCTIONS[name]} == {}
