"""The kernels of the U-Nets (norm, upsampling) compile for an H100 (sm_90), without one: no spills, vector loads."""

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
from scanseg.ops.instance_norm import triton_gradient_kernels as gradients, triton_kernels as norm
from scanseg.ops.instance_norm.triton_launch import CHANNELS_LAST, COMBINE
from scanseg.ops.upsample_join import triton_kernels as upsample
from scanseg.ops.upsample_join.triton_launch import TILES

MAPS = {"x", "y", "residual", "grad", "grad_x", "grad_residual", "fine", "coarse"}
NUMBERS = {"weight", "bias", "stats", "sums", "partial"}
WHOLE = {"stride_v", "num_channels", "num_voxels", "first_channel", "all_channels"}

def keep(name, kernel, warps, **constants):
    constants["stride_c"] = 1
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    def type_of(key):
        if key in constants:
            return "constexpr"
        return "*bf16" if key in MAPS else "*fp32" if key in NUMBERS else "fp32" if key in ("eps", "slope") else "i32"
    signature = {key: type_of(key) for key in kernel.arg_names}
    aligned = [i for i, key in enumerate(kernel.arg_names) if key in MAPS | NUMBERS | WHOLE and key not in constants]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    cubin = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["cubin"]
    with open(f"{sys.argv[1]}/{name}.cubin", "wb") as file:
        file.write(cubin)

def blocks(tile):
    return {"BLOCK_V": tile[0], "BLOCK_C": tile[1], "ACCUMULATE": tl.float32}

for tile in CHANNELS_LAST.whole:
    flags = {"HAS_RESIDUAL": True, "ACTIVE": True, **blocks(tile)}
    keep(f"whole-{tile.voxels}", norm.whole_forward_kernel, tile.num_warps, **flags)
    keep(f"whole-gradients-{tile.voxels}", gradients.whole_backward_kernel, tile.num_warps, **flags)
for width, passes in (("narrow", CHANNELS_LAST.narrow), ("wide", CHANNELS_LAST.wide)):
    tile = passes.write
    keep(f"apply-{width}", norm.apply_kernel, tile.num_warps, HAS_RESIDUAL=True, ACTIVE=True, **blocks(tile))
    keep(f"gradient-{width}", gradients.gradient_kernel, tile.num_warps, ACTIVE=True, **blocks(tile))
    tile = passes.sum
    keep(f"moments-{width}", norm.moments_kernel, tile.num_warps, **blocks(tile))
    for followed in (False, True):
        flags = {"HAS_RESIDUAL": followed, "ACTIVE": True, **blocks(tile)}
        keep(f"gradient-sums-{width}-{followed}", gradients.gradient_sums_kernel, tile.num_warps, **flags)
combining = {"BLOCK_K": COMBINE.voxels, "BLOCK_C": COMBINE.channels, "ACCUMULATE": tl.float32}
keep("combine-moments", norm.combine_moments_kernel, COMBINE.num_warps, **combining)
keep("combine-sums", gradients.combine_sums_kernel, COMBINE.num_warps, **combining)
for tile in TILES.values():
    for factors in ((2, 2, 2), (1, 1, 1)):
        steps = dict(zip(("DZ", "DY", "DX"), factors))
        keep(f"raise-{tile[1]}-{factors[0]}", upsample.raise_kernel, tile[2], **blocks(tile), **steps)
        keep(f"lower-{tile[1]}-{factors[0]}", upsample.lower_kernel, tile[2], **blocks(tile), **steps)
"""

LONGEST = {"apply-wide": 560, "gradient-sums-wide-True": 980, "moments-wide": 1090}
"""Instructions of whole kernels, for 32 elements per thread each. Measured 448, 784 and 872."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The compiled kernels, by name."""
    return compiled_kernels(COMPILE, tmp_path_factory.mktemp("cubins"))


def test_nothing_spills(kernels):
    assert len(kernels) == 24
    found = {name: (kernel.usage["STACK"], kernel.usage["LOCAL"]) for name, kernel in kernels.items()}
    assert {name: spilt for name, spilt in found.items() if any(spilt)} == {}


def test_maps_are_read_and_written_in_vectors(kernels):
    """Eight neighbouring channels of 16 bits are one load of 16 bytes."""
    for kernel in kernels.values():
        accesses = [line for line in kernel.code if "LDG" in line or "STG" in line]
        assert sum(".E.128" in line for line in accesses) >= 4
        assert not [line for line in accesses if ".U16" in line or ".E.64" in line]


def test_instructions_stay_few(kernels):
    lengths = {name: len(kernels[name].code) for name in LONGEST}
    assert {name: length for name, length in lengths.items() if length > LONGEST[name]} == {}
