"""The depthwise convolution with activations, bias and residual: every backend against the float64 reference."""

import pytest
import torch
from torch.nn import functional as F

from scanseg.errors import InputError, UsageError
from scanseg.ops.depthwise import BACKENDS, depthwise_conv
from scanseg.ops.depthwise.triton_backend import _convolve, _convolve_backward

from .precision import assert_accurate, cast, poisoned, run

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def conv_inputs(generator, *, size, shape=(2, 9, 5, 6), bias=False):
    inputs = {
        "x": torch.randn(shape, generator=generator),
        "weight": torch.randn(shape[1], 1, size, size, generator=generator) / size,
    }
    return inputs | ({"bias": torch.randn(shape[1], generator=generator)} if bias else {})


def conv(backend, **options):
    return lambda inputs: depthwise_conv(
        inputs["x"], inputs["weight"], bias=inputs.get("bias"), backend=backend, **options
    )


def by_taps(inputs, *, residual=False, gelu=False, silu=False):
    """Compute the definition, tap by tap."""
    x, weight = inputs["x"], inputs["weight"]
    if gelu:
        x = F.gelu(x)
    size, (height, width) = weight.shape[-1], x.shape[2:]
    padded = F.pad(x, (size // 2,) * 4)
    y = x.clone() if residual else torch.zeros_like(x)
    for row in range(size):
        for column in range(size):
            seen = padded[:, :, row : row + height, column : column + width]
            y = y + seen * weight[:, 0, row, column, None, None]
    if "bias" in inputs:
        y = y + inputs["bias"][:, None, None]
    return F.silu(y) if silu else y


AROUND = {
    "plain": {},
    "silu": {"activation": "silu"},
    "multi-scale": {"residual": True, "input_activation": "gelu"},
    "all": {"residual": True, "input_activation": "gelu", "activation": "silu"},
}


def definition(options):
    return lambda inputs: by_taps(
        inputs,
        residual=options.get("residual", False),
        gelu="input_activation" in options,
        silu="activation" in options,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("around", AROUND)
def test_backends_compute_the_definition(generator, backend, dtype, around):
    inputs = cast(conv_inputs(generator, size=3, bias=around in ("plain", "all")), dtype)
    grad = torch.randn(inputs["x"].shape, generator=generator).to(dtype)
    assert_accurate(conv(backend, **AROUND[around]), definition(AROUND[around]), inputs, grad)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 15, 3), (1, 17, 3, 35)])
def test_kernels_and_maps_of_any_size(generator, size, shape):
    inputs = conv_inputs(generator, size=size, shape=shape, bias=True)
    grad = torch.randn(shape, generator=generator)
    options = {"residual": True, "activation": "silu"}
    assert_accurate(conv("triton", **options), definition(options), inputs, grad)


def test_weights_keep_their_precision_beside_a_16_bit_map(generator):
    """A tap of 2^-12 added to the identity would vanish in bfloat16."""
    x = torch.full((1, 8, 4, 4), 2.0).bfloat16().requires_grad_()
    weight = torch.full((8, 1, 1, 1), -1 + 2.0**-12, requires_grad=True)
    y = depthwise_conv(x, weight, residual=True, backend="triton")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.full_like(x.float(), 2.0**-11), rtol=0, atol=0)
    y.sum().backward()
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 32.0), rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_around_the_tensors_is_not_read(generator, layout):
    inputs = conv_inputs(generator, size=5, shape=(2, 5, 6, 5), bias=True)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    clean = {name: tensor.clone() for name, tensor in inputs.items()}
    clean["x"] = clean["x"].contiguous(memory_format=layout)
    results = run(conv("triton", residual=True), {name: poisoned(t) for name, t in inputs.items()}, grad)
    for name, expected in run(conv("triton", residual=True), clean, grad).items():
        torch.testing.assert_close(results[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("around", ["silu", "multi-scale"])
def test_gradients_in_float64(generator, around):
    inputs = cast(conv_inputs(generator, size=3, shape=(1, 2, 3, 3), bias=True), torch.float64)
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]
    names = list(inputs)
    operator = conv("triton", **AROUND[around])
    torch.autograd.gradcheck(
        lambda *tensors: operator(dict(zip(names, tensors, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize("around", ["silu", "multi-scale"])
@pytest.mark.parametrize("bias", [False, True])
def test_passes_opcheck(generator, around, bias):
    inputs = conv_inputs(generator, size=3, shape=(1, 3, 4, 3), bias=bias)
    x, weight = (
        inputs["x"].permute(0, 2, 3, 1).contiguous().requires_grad_(),
        inputs["weight"].requires_grad_(),
    )
    options = AROUND[around]
    flags = {
        "gelu": "input_activation" in options,
        "silu": "activation" in options,
        "residual": "residual" in options,
    }
    taps = weight.flatten(1).t().contiguous().detach().requires_grad_()
    arguments = (x, taps, inputs["bias"].requires_grad_() if bias else None)
    torch.library.opcheck(_convolve, arguments, {**flags, "save_pre": True})
    pre = torch.randn(x.shape) if flags["silu"] else torch.empty(0)
    given = (torch.randn(x.shape), x.detach(), pre, taps.detach())
    torch.library.opcheck(_convolve_backward, given, {**flags, "has_bias": bias})


def test_traces_as_one_graph(generator):
    inputs = conv_inputs(generator, size=3, shape=(1, 3, 4, 3))
    operator = conv("triton", activation="silu")
    torch.compiler.reset()
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    expected = run(operator, inputs, grad)
    for name, tensor in run(compiled, inputs, grad).items():
        torch.testing.assert_close(tensor, expected[name])


def test_nothing_is_saved_without_gradients(generator):
    inputs = conv_inputs(generator, size=3)
    x = inputs["x"].permute(0, 2, 3, 1).contiguous()
    flags = {"gelu": False, "silu": True, "residual": False}
    taps = inputs["weight"].flatten(1).t().contiguous()
    assert _convolve(x, taps, None, **flags, save_pre=False)[1].numel() == 0
    assert _convolve(x, taps, None, **flags, save_pre=True)[1].shape == x.shape


def test_nan_is_passed_on(generator):
    inputs = conv_inputs(generator, size=3)
    inputs["x"][0, 0, 2, 2] = torch.nan
    assert conv("triton")(inputs)[0, 0].isnan().sum() == 9


def test_unsupported_calls_raise_with_a_reason(generator):
    even = conv_inputs(generator, size=4)
    with pytest.raises(InputError, match=r"kernels of an odd size, got 4. Use an odd size such as 5"):
        conv(None)(even)
    wide = conv_inputs(generator, size=9)
    with pytest.raises(UsageError, match="expected a kernel size of 1, 3, 5, 7, got 9"):
        conv("triton")(wide)
    assert conv(None)(wide).shape == wide["x"].shape
    with pytest.raises(InputError, match=r"weight: expected shape \(9, 1, 3, 3\) .*got \(5, 1, 3, 3\)"):
        conv(None)(even | {"weight": torch.zeros(5, 1, 3, 3)})
