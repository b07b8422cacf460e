"""Instance norm with residual and activation: every backend against the float64 formula."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from scanseg.errors import InputError, UsageError
from scanseg.ops._support.triton import MISSING
from scanseg.ops.instance_norm import BACKENDS, instance_norm
from scanseg.ops.instance_norm.triton_backend import _gradients, _normalise

from .precision import assert_accurate, cast, poisoned, relative_errors, run

pytest.importorskip("triton", reason=str(MISSING))
from scanseg.ops.instance_norm import triton_launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
backends = pytest.mark.parametrize("backend", BACKENDS)
# With and without residual and activation.
followers = pytest.mark.parametrize(
    ("has_residual", "slope"), [(False, None), (False, 0.01), (True, None), (True, 0.01), (True, 0.0)]
)
main_followers = pytest.mark.parametrize(
    ("has_residual", "slope"), [(False, 0.01), (True, 0.01), (True, None)]
)
formats = pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
SHAPES = [(2, 5, 1, 2), (2, 17, 3, 3), (1, 3, 7, 11), (3, 4, 3, 5, 2)]


@pytest.fixture(params=["whole", "by chunks"])
def tiling(request, monkeypatch):
    """Process small maps in one tile, or by chunks of tiles like large maps."""
    if request.param == "by chunks":
        by_chunks = triton_launch.Tiles(
            whole=(),
            narrow=triton_launch.Passes(sum=triton_launch.Tile(4, 4, 1), write=triton_launch.Tile(8, 2, 1)),
            wide=triton_launch.Passes(sum=triton_launch.Tile(8, 16, 1), write=triton_launch.Tile(16, 16, 1)),
        )
        monkeypatch.setattr(triton_launch, "CHANNELS_LAST", by_chunks)
        monkeypatch.setattr(triton_launch, "CHANNELS_FIRST", by_chunks)
        monkeypatch.setattr(triton_launch, "NUM_PROGRAMS", 40)
    return request.param


def norm_inputs(generator, shape, *, has_residual=True, mean=0.5, std=2.0):
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs = {"x": mean + std * normal(*shape), "weight": normal(shape[1]), "bias": normal(shape[1])}
    if has_residual:
        inputs["residual"] = normal(*shape)
    return {name: tensor.to(DEVICE) for name, tensor in inputs.items()}


def in_format(inputs, channels_last):
    memory_format = torch.channels_last if inputs["x"].ndim == 4 else torch.channels_last_3d
    return {
        name: tensor.contiguous(memory_format=memory_format) if channels_last and tensor.ndim > 1 else tensor
        for name, tensor in inputs.items()
    }


def norm(backend=None, *, slope=0.01):
    return lambda inputs: instance_norm(**inputs, negative_slope=slope, backend=backend)


def grad_for(inputs, generator):
    return torch.randn(inputs["x"].shape, generator=generator, dtype=torch.float64).to(inputs["x"])


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [(SHAPES[0], True), (SHAPES[1], False), (SHAPES[2], True), (SHAPES[3], True), (SHAPES[3], False)],
    ids=str,
)
@followers
def test_triton_float32_accuracy(generator, tiling, shape, has_residual, slope, channels_last):
    inputs = in_format(
        cast(norm_inputs(generator, shape, has_residual=has_residual), torch.float32), channels_last
    )
    grad = grad_for(inputs, generator)
    assert_accurate(norm("triton", slope=slope), norm("reference", slope=slope), inputs, grad)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@followers
def test_pytorch_float32_accuracy(generator, shape, has_residual, slope):
    inputs = cast(norm_inputs(generator, shape, has_residual=has_residual), torch.float32)
    grad = grad_for(inputs, generator)
    assert_accurate(norm("pytorch", slope=slope), norm("reference", slope=slope), inputs, grad)


@pytest.mark.parametrize("size", [127, 128, 129, 1024, 1025, 2503])
@formats
def test_tiles_and_their_borders(generator, size, channels_last):
    inputs = in_format(cast(norm_inputs(generator, (1, 3, 1, size)), torch.float32), channels_last)
    assert_accurate(norm("triton"), norm("reference"), inputs, grad_for(inputs, generator))


@pytest.mark.parametrize("backend", ["triton", "pytorch"])
@main_followers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@formats
def test_16_bit_accuracy(generator, tiling, backend, dtype, has_residual, slope, channels_last):
    inputs = norm_inputs(generator, (2, 5, 6, 7), has_residual=has_residual)
    inputs = in_format(cast(inputs, dtype), channels_last)
    grad = grad_for(inputs, generator)
    assert_accurate(norm(backend, slope=slope), norm("reference", slope=slope), inputs, grad)


@pytest.mark.parametrize("outlier", [False, True])
@formats
def test_a_large_mean_cancels_nothing(generator, tiling, outlier, channels_last):
    inputs = norm_inputs(generator, (1, 2, 12, 11), mean=1e3, std=1.0)
    if outlier:
        # The first values of a map, such as the border of an image, may be far from all others.
        inputs["x"][..., 0, :4] = 0
    inputs = in_format(cast(inputs, torch.float32), channels_last)
    truth, result = (norm(name)(cast(inputs, dtype)) for name, dtype in
                     (("reference", torch.float64), ("triton", torch.float32)))  # fmt: skip
    # A mean of 1e3 is rounded to 3e-5 in float32; measured 6e-5. Sums of squares would be wrong by 6e-2.
    assert (result - truth).norm() / truth.norm() < 1e-4
    assert_accurate(norm("triton"), norm("reference"), inputs, grad_for(inputs, generator))


@backends
@formats
def test_dtype_and_memory_format_are_those_of_the_map(generator, backend, channels_last):
    inputs = in_format(cast(norm_inputs(generator, (2, 3, 4, 4, 4)), torch.float32), channels_last)
    inputs["x"] = inputs["x"].bfloat16()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        results = run(norm(backend), inputs, grad_for(inputs, generator))
    assert results["output"].dtype == torch.bfloat16
    assert {name: results[f"grad {name}"].dtype for name in inputs} == {n: t.dtype for n, t in inputs.items()}
    if backend == "triton":
        strides = {results[name].stride() for name in ("output", "grad x", "grad residual")}
        assert strides == {inputs["x"].stride()}


@backends
def test_strided_inputs_in_poisoned_memory(generator, tiling, backend):
    inputs = cast(norm_inputs(generator, (2, 3, 4, 5)), torch.float64)
    grad = grad_for(inputs, generator)
    strided = {name: poisoned(tensor.cpu()).to(DEVICE) for name, tensor in inputs.items()}
    expected = run(norm("reference"), inputs, grad)
    if backend == "triton" and DEVICE == "cuda":
        pytest.skip("no float64 on the GPU")
    assert max(relative_errors(run(norm(backend), strided, poisoned(grad)), expected).values()) < 1e-12


@formats
def test_part_of_a_map_of_more_channels(generator, tiling, channels_last):
    inputs = cast(norm_inputs(generator, (2, 9, 4, 5)), torch.float32)
    whole = in_format(inputs, channels_last)
    parts = {name: tensor[:, 2:6] if tensor.ndim > 1 else tensor[2:6] for name, tensor in whole.items()}
    assert_accurate(norm("triton"), norm("reference"), parts, grad_for(parts, generator))


@pytest.mark.skipif(DEVICE == "cuda", reason="no float64 on the GPU")
@followers
def test_gradcheck(generator, tiling, has_residual, slope):
    channels_last = (tiling == "whole") == has_residual
    inputs = in_format(norm_inputs(generator, (2, 2, 2, 3, 1), has_residual=has_residual), channels_last)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    function = norm("triton", slope=slope)
    assert torch.autograd.gradcheck(
        lambda *args: function(dict(zip(inputs, args, strict=True))), tensors, fast_mode=True
    )


@pytest.mark.parametrize(("shape", "channels_last"), [((2, 3, 4, 5), False), ((2, 3, 2, 3, 4), True)])
@main_followers
def test_passes_opcheck(generator, shape, has_residual, slope, channels_last):
    inputs = norm_inputs(generator, shape, has_residual=has_residual)
    inputs = in_format(cast(inputs, torch.bfloat16), channels_last)
    x, weight, bias = (inputs[name] for name in ("x", "weight", "bias"))
    residual = inputs.get("residual")
    leaves = [
        None if tensor is None else tensor.clone().requires_grad_() for tensor in (x, weight, bias, residual)
    ]
    torch.library.opcheck(_normalise, (*leaves, 1e-5, slope))
    y, stats = _normalise(x, weight, bias, residual, 1e-5, slope)
    kept = y if has_residual and slope is not None else None
    torch.library.opcheck(_gradients, (torch.ones_like(y), x, kept, weight, bias, stats, slope))


def test_results_are_the_same_each_time(generator, tiling):
    inputs = in_format(cast(norm_inputs(generator, (2, 5, 9, 9)), torch.bfloat16), True)
    grad = grad_for(inputs, generator)
    first, second = run(norm("triton"), inputs, grad), run(norm("triton"), inputs, grad)
    assert all(torch.equal(first[name], second[name]) for name in first)


@main_followers
def test_compiles_without_graph_breaks(generator, has_residual, slope):
    inputs = in_format(
        cast(norm_inputs(generator, (2, 3, 4, 5), has_residual=has_residual), torch.float32), True
    )
    grad = grad_for(inputs, generator)
    for backend in ("triton", "pytorch"):
        torch.compiler.reset()
        operator = norm(backend, slope=slope)
        compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
        errors = relative_errors(run(compiled, inputs, grad), run(operator, inputs, grad))
        assert max(errors.values()) < 1e-5


def test_tensors_without_data(generator):
    inputs = {name: tensor.to("meta") for name, tensor in norm_inputs(generator, (2, 3, 4, 5)).items()}
    grads = run(norm(), inputs, inputs["x"])
    assert {name: grads[f"grad {name}"].shape for name in inputs} == {n: t.shape for n, t in inputs.items()}


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_one_voxel_raises_the_error_of_torch(generator, backend):
    inputs = norm_inputs(generator, (2, 3, 1, 1))
    with pytest.raises(ValueError, match="Expected more than 1 spatial element") as raised:
        norm(backend)(inputs)
    with pytest.raises(ValueError) as torchs:
        F.instance_norm(inputs["x"])
    assert str(raised.value) == str(torchs.value)


def test_the_error_names_wrong_arguments(generator):
    inputs = norm_inputs(generator, (2, 3, 4, 5))
    message = (
        r"bias: expected shape \(3,\) .*got \(2,\).*"
        r"residual: expected shape \(2, 3, 4, 5\) .*got \(1, 3, 4, 5\)"
    )
    with pytest.raises(InputError, match=message):
        norm()({**inputs, "bias": inputs["bias"][1:], "residual": inputs["residual"][:1]})
    with pytest.raises(InputError, match=r"negative_slope: expected 0 or more, got -0.5"):
        norm(slope=-0.5)(inputs)
    with pytest.raises(InputError, match=r"x: expected a map .*got shape \(2, 3\)"):
        norm()({**inputs, "x": inputs["x"][..., 0, 0]})
    with pytest.raises(UsageError, match=r"one of the backends triton, pytorch, reference, got 'fast'"):
        norm("fast")(inputs)
    meta = {name: tensor.to("meta") for name, tensor in inputs.items()}
    with pytest.raises(UsageError, match="got a tensor on meta"):
        norm("triton")(meta)
