"""The layers of MSVM-UNet give the same results, gradients, buffers and dtypes with Triton and with PyTorch."""

import copy

import pytest
import torch
from torch import nn

from scanseg.layers import Upsampling, VSSBlock, VSSStage
from scanseg.layers.channel_norm import ChannelNorm
from scanseg.layers.feed_forward import FeedForward
from scanseg.networks.msvm_unet import MSVMUNet
from scanseg.ops.channel_norm import BACKENDS as CHANNEL_NORM
from scanseg.ops.depthwise import BACKENDS as DEPTHWISE
from scanseg.ops.normed_depthwise import BACKENDS as NORMED_DEPTHWISE


@pytest.fixture
def on_triton(monkeypatch):
    """Return a function that makes Triton the default backend, as on a GPU."""
    if torch.cuda.is_available():
        pytest.skip("Triton runs on the CPU only in the interpreter")

    def choose():
        for table in (CHANNEL_NORM, DEPTHWISE, NORMED_DEPTHWISE):
            monkeypatch.setitem(table, "triton", table["triton"]._replace(by_name_only=False))

    return choose


def stage(dim):
    return VSSStage(
        *(VSSBlock(dim, ffn_kernels=kernels, drop_path=0.5, scan=False) for kernels in ((), (1, 3, 5)))
    )


LAYERS = {
    "lkpe": lambda: Upsampling(6, 5, factor=2),
    "flkpe": lambda: Upsampling(4, 3, factor=4),
    "patch-expand": lambda: Upsampling(6, 5, factor=2, method="patch-expand"),
    "ms-ffn": lambda: FeedForward(5, expansion=2, kernels=(1, 3, 5)),
    "stage": lambda: stage(6),
}


def results(layer, x):
    """Return output, gradients and buffers after two training steps, and the output in evaluation."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    for _ in range(2):
        y = layer(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
    evaluated = copy.deepcopy(layer).eval()(x)
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"y": y, "grad": x.grad, "evaluated": evaluated, **grads, **dict(layer.named_buffers())}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree(generator, on_triton, name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randn(2, next(layer.parameters()).shape[-1], 3, 4, generator=generator)
    expected = results(copy.deepcopy(layer), x)
    on_triton()
    for key, tensor in results(layer, x).items():
        # A bias before a batch norm has gradient 0, up to rounding.
        bound = 1e-2 if key == "expand.0.bias" and "lkpe" in name else 1e-4
        bound = max(
            bound, 2e-5 * float(expected[key].detach().abs().max())
        )  # 9e-6 with PyTorch 2.11, 5e-6 with 2.13
        assert torch.allclose(tensor, expected[key], atol=bound, rtol=1e-4), key


def test_dtypes_under_autocast(generator, on_triton):
    on_triton()
    x = torch.randn(2, 6, 3, 4, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        assert ChannelNorm(6)(x).dtype == torch.bfloat16
        stream = ChannelNorm(6, starts_stream=True)(x.bfloat16())
        assert stream.dtype == torch.float32
        assert stage(6)(stream).dtype == torch.float32
        assert stage(6)(x.bfloat16()).dtype == torch.bfloat16
        assert Upsampling(6, 5)(x).dtype == torch.bfloat16


def test_the_network_trains_and_traces(generator, on_triton):
    on_triton()
    torch.manual_seed(0)
    sizes = {"dims": (4, 4, 4, 4), "depths": (1, 1, 1, 1), "decoder_depth": 1, "ffn_kernels": (1, 3)}
    network = MSVMUNet(1, 2, **sizes, sequence_block="none").eval()
    x = torch.randn(2, 1, 32, 32, generator=generator)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), network(x))
    network.train()(x).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert all(
        module.num_batches_tracked == 1 for module in network.modules() if isinstance(module, nn.BatchNorm2d)
    )
