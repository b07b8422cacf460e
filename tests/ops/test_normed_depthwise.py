"""Batch normalization, ReLU and depthwise convolution as one operator, against the float64 reference."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scanseg.errors import InputError
from scanseg.ops.normed_depthwise import BACKENDS, normed_depthwise_conv
from scanseg.ops.normed_depthwise.triton_backend import (
    _convolve_normed,
    _convolve_normed_backward,
    _statistics,
)

from .precision import assert_accurate, cast, poisoned, run

# On the CPU PyTorch keeps the gradients of batch statistics in 16 bits, which exceeds the bounds.
SERVED = [
    ("triton", torch.float32),
    ("triton", torch.bfloat16),
    ("triton", torch.float16),
    ("pytorch", torch.float32),
]


def head_inputs(generator, *, channels=11, shape=(3, 5, 6), mean=0.5):
    batch, *space = shape
    return {
        "x": torch.randn(batch, channels, *space, generator=generator) * 2 + mean,
        "weight": torch.randn(channels, 1, 3, 3, generator=generator) / 3,
        "bias": torch.randn(channels, generator=generator),
        "norm_weight": torch.randn(channels, generator=generator),
        "norm_bias": torch.randn(channels, generator=generator),
    }


def running_statistics(channels, dtype=torch.float32):
    return torch.linspace(-1, 1, channels, dtype=dtype), torch.linspace(0.5, 2, channels, dtype=dtype)


def head(backend, *, training):
    def operator(inputs):
        x = inputs["x"]
        running_mean, running_var = running_statistics(
            x.shape[1], torch.promote_types(x.dtype, torch.float32)
        )
        return normed_depthwise_conv(
            **inputs,
            running_mean=running_mean,
            running_var=running_var,
            momentum=0.1 if training else None,
            backend=backend,
        )

    return operator


def in_steps(*, training):
    """Compute the definition step by step."""

    def operator(inputs):
        x = inputs["x"]
        channels = x.shape[1]
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            mean, variance = running_statistics(channels, x.dtype)
        mean, deviation = mean[:, None, None], (variance[:, None, None] + 1e-5).sqrt()
        normed = (x - mean) / deviation * inputs["norm_weight"][:, None, None] + inputs["norm_bias"][
            :, None, None
        ]
        return F.conv2d(normed.relu(), inputs["weight"], inputs["bias"], padding=1, groups=channels)

    return operator


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 6), (1, 2, 4), (2, 17, 3)])
def test_backends_compute_the_definition(generator, backend, dtype, training, shape):
    inputs = cast(head_inputs(generator, shape=shape), dtype)
    grad = torch.randn(inputs["x"].shape, generator=generator).to(dtype)
    assert_accurate(head(backend, training=training), in_steps(training=training), inputs, grad)


def test_a_mean_far_from_zero_costs_no_precision(generator):
    inputs = head_inputs(generator, mean=300.0)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    assert_accurate(head("triton", training=True), in_steps(training=True), inputs, grad)


@pytest.mark.parametrize("rows", [(1, 1, 2), (1, 5, 7), (2, 40, 30)])
def test_statistics_over_shares_of_any_size(generator, rows):
    x = torch.randn(*rows, 70, generator=generator) + 100
    mean, variance = _statistics(x.permute(0, 3, 1, 2))
    flat = x.double().flatten(0, 2)
    torch.testing.assert_close(mean, flat.mean(0).float())
    torch.testing.assert_close(variance, flat.var(0, correction=0).float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
def test_running_statistics_move_as_those_of_batch_norm(generator, backend, training):
    inputs = head_inputs(generator)
    norm = nn.BatchNorm2d(11, momentum=0.3).train(training)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    normed_depthwise_conv(
        **inputs,
        running_mean=mean,
        running_var=variance,
        momentum=norm.momentum if training else None,
        backend=backend,
    )
    norm(inputs["x"])
    torch.testing.assert_close((mean, variance), (norm.running_mean, norm.running_var))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_around_the_tensors_is_not_read(generator, layout):
    inputs = head_inputs(generator, channels=5)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    clean = {name: tensor.clone() for name, tensor in inputs.items()}
    clean["x"] = clean["x"].contiguous(memory_format=layout)
    operator = head("triton", training=True)
    results = run(operator, {name: poisoned(tensor) for name, tensor in inputs.items()}, poisoned(grad))
    for name, expected in run(operator, clean, grad).items():
        torch.testing.assert_close(results[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_in_float64(generator, training):
    inputs = cast(head_inputs(generator, channels=2, shape=(2, 3, 2)), torch.float64)
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]
    names, operator = list(inputs), head("triton", training=training)
    torch.autograd.gradcheck(
        lambda *tensors: operator(dict(zip(names, tensors, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize("of_batch", [False, True])
def test_passes_opcheck(generator, of_batch):
    inputs = head_inputs(generator, channels=3)
    x = inputs["x"].contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(_statistics, (x,))
    inputs["weight"] = inputs["weight"].flatten(1).t().contiguous()
    parameters = [tensor.requires_grad_() for name, tensor in inputs.items() if name != "x"]
    arguments = [x.requires_grad_(), *parameters, *_statistics(x.detach())]
    options = {"eps": 1e-5, "of_batch": of_batch}
    # The gradient includes that of the statistics, so the tests above check both operators together.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(_convolve_normed, tuple(arguments), options, test_utils=tests)
    del arguments[2]
    detached = [tensor.detach() for tensor in arguments]
    torch.library.opcheck(_convolve_normed_backward, (torch.randn(x.shape), *detached), options)


def test_traces_as_one_graph(generator):
    inputs = head_inputs(generator, channels=3)
    operator = head("triton", training=True)
    torch.compiler.reset()
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    expected = run(operator, inputs, grad)
    for name, tensor in run(compiled, inputs, grad).items():
        torch.testing.assert_close(tensor, expected[name])


def test_one_pixel_has_no_statistics(generator):
    inputs = head_inputs(generator, shape=(1, 1, 1))
    with pytest.raises(InputError, match=r"expected at least two pixels .*got shape \(1, 11, 1, 1\)"):
        head(None, training=True)(inputs)
    assert head(None, training=False)(inputs).shape == (1, 11, 1, 1)
