"""The norm over channels, alone and with the residual sum or the rearrangement before it."""

import pytest
import torch

from scanseg.errors import InputError, UsageError
from scanseg.ops.channel_norm import BACKENDS, channel_norm, residual_channel_norm
from scanseg.ops.channel_norm.triton_backend import MOST_CHANNELS, _normalise, _normalise_backward

from .precision import assert_accurate, cast, poisoned, run

# On the CPU PyTorch sums the gradients of parameters in 16 bits, which exceeds the bounds.
SERVED = [
    ("triton", torch.float32),
    ("triton", torch.bfloat16),
    ("triton", torch.float16),
    ("pytorch", torch.float32),
]


def norm_inputs(generator, *, channels=24, space=(5, 3), factor=1, mean=1.0, added=False):
    shape = (2, factor**2 * channels, *space)
    inputs = {
        "x": torch.randn(shape, generator=generator) * 2 + mean,
        "weight": torch.randn(channels, generator=generator),
        "bias": torch.randn(channels, generator=generator),
    }
    return inputs | ({"added": torch.randn(shape, generator=generator)} if added else {})


def norm(backend, **options):
    return lambda inputs: channel_norm(
        inputs["x"], inputs["weight"], inputs["bias"], backend=backend, **options
    )


def residual_norm(backend, sample_scale=None):
    """Return both results side by side, so that one gradient reaches both."""

    def operator(inputs):
        total, normed = residual_channel_norm(
            inputs["x"],
            inputs["added"],
            inputs["weight"],
            inputs["bias"],
            sample_scale=sample_scale,
            backend=backend,
        )
        return torch.cat((total, normed), dim=1)

    return operator


def by_rows(factor=1):
    """The definition."""

    def operator(inputs):
        x = inputs["x"]
        if factor > 1:
            batch, channels, height, width = x.shape
            x = x.view(batch, factor, factor, channels // factor**2, height, width)
            x = x.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * factor, width * factor)
        return normalised(x, inputs)

    return operator


def normalised(x, inputs):
    per_channel = (-1, *(1,) * (x.ndim - 2))
    centred = x - x.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * inputs["weight"].view(per_channel) + inputs["bias"].view(per_channel)


def residual_by_rows(sample_scale=None):
    def operator(inputs):
        added = inputs["added"]
        if sample_scale is not None:
            added = added * sample_scale.to(added.dtype).view(-1, *(1,) * (added.ndim - 1))
        total = inputs["x"] + added
        return torch.cat((total, normalised(total, inputs)), dim=1)

    return operator


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize(
    ("channels", "space", "factor"),
    [(24, (5, 3), 1), (96, (7, 5), 1), (5, (2, 3, 4), 1), (17, (3, 5), 2), (8, (2, 3), 4), (2100, (1, 3), 1)],
)
def test_backends_compute_the_definition(generator, backend, dtype, channels, space, factor):
    inputs = cast(norm_inputs(generator, channels=channels, space=space, factor=factor), dtype)
    output = by_rows(factor)(inputs)
    grad = torch.randn(output.shape, generator=generator).to(dtype)
    assert_accurate(norm(backend, factor=factor), by_rows(factor), inputs, grad)


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize("scaled", [False, True])
def test_residual_connection_and_norm_in_one(generator, backend, dtype, scaled):
    inputs = cast(norm_inputs(generator, channels=40, added=True), dtype)
    sample_scale = torch.tensor([0.0, 1.25]) if scaled else None
    grad = torch.randn(2, 80, 5, 3, generator=generator).to(dtype)
    assert_accurate(residual_norm(backend, sample_scale), residual_by_rows(sample_scale), inputs, grad)


def test_a_mean_far_from_zero_costs_no_precision(generator):
    inputs = norm_inputs(generator, mean=300.0)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    assert_accurate(norm("triton"), by_rows(), inputs, grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes_of_results_and_gradients(generator, backend):
    inputs = norm_inputs(generator, added=True)
    x, added = inputs["x"].requires_grad_(), inputs["added"].bfloat16().requires_grad_()
    weight = inputs["weight"].requires_grad_()
    total, normed = residual_channel_norm(
        x, added, weight, inputs["bias"], dtype=torch.bfloat16, backend=backend
    )
    assert (total.dtype, normed.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(total, x + added)
    normed.float().sum().backward()
    assert (x.grad.dtype, added.grad.dtype, weight.grad.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )
    torch.testing.assert_close(added.grad, x.grad.bfloat16())
    assert (
        channel_norm(x, weight, inputs["bias"], dtype=torch.float16, backend=backend).dtype == torch.float16
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_around_the_tensors_is_not_read(generator, layout):
    inputs = norm_inputs(generator, channels=9)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    clean = {name: tensor.clone() for name, tensor in inputs.items()}
    clean["x"] = clean["x"].contiguous(memory_format=layout)
    results = run(norm("triton"), {name: poisoned(tensor) for name, tensor in inputs.items()}, poisoned(grad))
    for name, expected in run(norm("triton"), clean, grad).items():
        torch.testing.assert_close(results[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["plain", "residual", "pixels"])
def test_gradients_in_float64(generator, kind):
    factor = 2 if kind == "pixels" else 1
    inputs = norm_inputs(generator, channels=3, space=(2, 2), factor=factor, added=kind == "residual")
    leaves = [tensor.requires_grad_() for tensor in cast(inputs, torch.float64).values()]
    names = list(inputs)
    scale = torch.tensor([0.5, 2.0])
    operator = residual_norm("triton", scale) if kind == "residual" else norm("triton", factor=factor)
    torch.autograd.gradcheck(lambda *tensors: operator(dict(zip(names, tensors, strict=True))), leaves)


@pytest.mark.parametrize("added", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1, 2])
def test_passes_opcheck(generator, added, factor):
    inputs = norm_inputs(generator, channels=4, space=(2, 3), factor=factor, added=added is not None)
    x = inputs["x"].contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = inputs["weight"].requires_grad_(), inputs["bias"].requires_grad_()
    branch = None
    if added is not None:
        branch = inputs["added"].to(added, copy=True, memory_format=torch.channels_last).requires_grad_()
    for scale in (None, torch.rand(2)):
        arguments = (x, branch, scale, weight, bias, 1e-5, torch.float32, factor)
        # The operator sums the gradients of two results of different dtypes. Other tests check their accuracy.
        torch.library.opcheck(_normalise, arguments)
        total, normed = (tensor.detach() for tensor in _normalise(*arguments))
        given = (torch.randn(total.shape), torch.randn(normed.shape), x.detach() if added is None else total)
        torch.library.opcheck(
            _normalise_backward, (*given, scale, weight.detach(), 1e-5, factor, torch.float32, added)
        )


def test_traces_as_one_graph(generator):
    inputs = norm_inputs(generator, channels=4, added=True)
    torch.compiler.reset()
    compiled = torch.compile(residual_norm("triton"), backend="aot_eager", fullgraph=True)
    grad = torch.randn(2, 8, 5, 3, generator=generator)
    expected = run(residual_norm("triton"), inputs, grad)
    for name, tensor in run(compiled, inputs, grad).items():
        torch.testing.assert_close(tensor, expected[name])


def test_unsupported_calls_raise_with_a_reason(generator):
    inputs = norm_inputs(generator, channels=4)
    with pytest.raises(InputError, match=r"weight: expected shape \(4,\) .*got \(5,\)"):
        norm(None)(inputs | {"weight": torch.zeros(5)})
    with pytest.raises(InputError, match=r"expected a positive factor and a map .*got factor 2"):
        channel_norm(torch.zeros(1, 4, 2, 2, 2), torch.ones(1), torch.ones(1), factor=2)
    with pytest.raises(InputError, match=r"added: expected shape \(2, 4, 5, 3\) .*got \(1,\)"):
        residual_norm(None)(inputs | {"added": torch.zeros(1)})
    wide = {"x": torch.zeros(1, MOST_CHANNELS + 1, 1), "weight": torch.ones(MOST_CHANNELS + 1)}
    with pytest.raises(UsageError, match="expected at most 8192 channels, got 8193"):
        norm("triton")(wide | {"bias": torch.zeros(MOST_CHANNELS + 1)})
