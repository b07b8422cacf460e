"""Nearest upsampling concatenated with a skip: every backend gives the numbers of repetition voxel by voxel."""

import pytest
import torch

from scanseg.errors import InputError, UsageError
from scanseg.ops._support.triton import MISSING
from scanseg.ops.upsample_join import BACKENDS, upsample_join
from scanseg.ops.upsample_join.triton_backend import _join, _part

from .precision import run

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
# Sizes, factors and channels of the map and the skip (0: no skip).
CASES = [
    ((3, 5), (2, 2), 3, 4),
    ((4, 3), (1, 2), 35, 2),
    ((2, 3, 4), (2, 2, 2), 3, 5),
    ((3, 1, 5), (1, 2, 3), 17, 70),
    ((6, 7), (2, 3), 5, 0),
    ((2, 2, 2), (1, 1, 1), 4, 0),
]
cases = pytest.mark.parametrize(("size", "factors", "channels", "skip_channels"), CASES, ids=str)


def join_inputs(generator, size, factors, channels, skip_channels, dtype=torch.float32):
    def draw(count, axes):
        values = torch.randn(2, count, *axes, generator=generator, dtype=torch.float64)
        return values.to(DEVICE, dtype).contiguous(memory_format=FORMATS[len(axes)])

    inputs = {"x": draw(channels, size)}
    if skip_channels:
        fine = [axis * factor for axis, factor in zip(size, factors, strict=True)]
        inputs["skip"] = draw(skip_channels, fine)
    return inputs


def join(factors, backend=None):
    return lambda inputs: upsample_join(inputs["x"], inputs.get("skip"), factors=factors, backend=backend)


@pytest.mark.parametrize("backend", ["triton", "pytorch"])
@cases
def test_equals_repeating(generator, backend, size, factors, channels, skip_channels):
    inputs = join_inputs(generator, size, factors, channels, skip_channels)
    output = join(factors, "reference")(inputs)
    grad = torch.randn(output.shape, generator=generator).to(output)
    expected, results = (run(join(factors, name), inputs, grad) for name in ("reference", backend))
    assert torch.equal(results["output"], expected["output"])
    for name in inputs:
        torch.testing.assert_close(results[f"grad {name}"], expected[f"grad {name}"])
    if backend == "triton":
        for tensor in results.values():
            assert tensor.is_contiguous(memory_format=FORMATS[len(size)])


@cases
def test_gradients_of_16_bits_are_summed_in_float32(generator, size, factors, channels, skip_channels):
    inputs = join_inputs(generator, size, factors, channels, skip_channels, dtype=torch.float16)
    grad = torch.randn(join(factors)(inputs).shape, generator=generator).to(inputs["x"])
    results = run(join(factors, "triton"), inputs, grad)
    wide = {name: tensor.double() for name, tensor in inputs.items()}
    expected = run(join(factors, "reference"), wide, grad.double())
    assert torch.equal(results["grad x"], expected["grad x"].half())


@cases
def test_passes_opcheck(generator, size, factors, channels, skip_channels):
    inputs = join_inputs(generator, size, factors, channels, skip_channels)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    arguments = (tensors[0], tensors[1] if skip_channels else None, list(factors))
    torch.library.opcheck(_join, arguments)
    grad = _join(*arguments).detach()
    torch.library.opcheck(_part, (grad, 0, channels, list(factors)))
    with torch.enable_grad():
        function = join(factors, "triton")
        names = list(inputs)
        wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
        assert DEVICE == "cuda" or torch.autograd.gradcheck(
            lambda *args: function(dict(zip(names, args, strict=True))), wide, fast_mode=True
        )


def test_compiles_without_graph_breaks(generator):
    inputs = join_inputs(generator, (3, 4), (2, 2), 3, 2)
    for backend in ("triton", "pytorch"):
        torch.compiler.reset()
        compiled = torch.compile(join((2, 2), backend), backend="aot_eager", fullgraph=True)
        grad = torch.ones(2, 5, 6, 8, device=DEVICE)
        expected, results = run(join((2, 2), "reference"), inputs, grad), run(compiled, inputs, grad)
        for name, tensor in expected.items():
            torch.testing.assert_close(results[name], tensor)


def test_unsupported_calls_raise_with_a_reason(generator):
    inputs = join_inputs(generator, (3, 4), (2, 2), 3, 2)
    first = {name: tensor.contiguous() for name, tensor in inputs.items()}
    with pytest.raises(UsageError, match="expected channels-last maps"):
        join((2, 2), "triton")(first)
    with pytest.raises(UsageError, match=r"of one dtype, got torch.float32 and torch.bfloat16"):
        join((2, 2), "triton")({**inputs, "skip": inputs["skip"].bfloat16()})
    with pytest.raises(UsageError, match="one of the backends triton, pytorch, reference, got 'fast'"):
        join((2, 2), "fast")(inputs)
    with pytest.raises(InputError, match=r"skip: expected shape \(2, 2, 9, 8\) .*got \(2, 2, 6, 8\)"):
        join((3, 2))(inputs)
    with pytest.raises(InputError, match=r"factors: expected 2 whole numbers from 1 on, got \(2,\)"):
        join((2,))(inputs)
    assert set(BACKENDS) == {"triton", "pytorch", "reference"}
