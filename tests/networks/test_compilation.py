"""Whole networks under `torch.compile(fullgraph=True)`: one graph, same numbers."""

import warnings

import pytest
import torch

from scanseg.networks import MSVMUNet, XLSTMUNet

# Raised inside dynamo while it traces an autograd function, in torch 2.13.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Training of the 2D xLSTM-UNet under torch.compile:RuntimeWarning"),
]

STRIDES = {2: ((1, 1), (2, 2), (2, 2)), 3: ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))}
"""By number of axes: with fewer stages the `enc` variant has no sequence layer."""
FEATURES = (4, 8, 12, 16)


def msvm():
    # Without stochastic depth, whose draws differ from graph to graph.
    return MSVMUNet(1, 3, dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.0)


def xlstm(variant, num_axes, traversal="forward"):
    strides = STRIDES[num_axes] if variant == "enc" else STRIDES[num_axes][:3]
    return XLSTMUNet(
        *(1, 3),
        patch_size=(32, 32) if num_axes == 2 else (8, 16, 16),
        strides=strides,
        features=FEATURES[: len(strides)],
        variant=variant,
        num_blocks_encoder=1,
        num_blocks_decoder=1,
        traversal=traversal,
    )


NETWORKS = {
    "msvm": (msvm, (64, 64)),
    "xlstm-enc-2d": (lambda: xlstm("enc", 2), (32, 32)),
    "xlstm-enc-3d": (lambda: xlstm("enc", 3), (8, 16, 16)),
    "xlstm-bot-3d": (lambda: xlstm("bot", 3), (8, 16, 16)),
    "xlstm-both-ways": (lambda: xlstm("bot", 2, "bidirectional"), (32, 32)),
}


SLOW_TO_TRAIN = ("xlstm-enc-2d", "xlstm-both-ways")
"""Networks whose compiled training on a CPU is warned of."""


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture
def network_and_images(name, generator):
    torch.compiler.reset()
    torch.manual_seed(0)
    build, size = NETWORKS[name]
    return build(), torch.randn(2, 1, *size, generator=generator)


def warnings_of(caught):
    """Return the warnings of slow training."""
    return [str(each.message) for each in caught if "under torch.compile" in str(each.message)]


def as_tuple(outputs):
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs


def outputs_and_gradients(function, network, images):
    network.zero_grad(set_to_none=True)
    outputs = as_tuple(function(images))
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return [output.detach() for output in outputs], gradients


@torch.no_grad()
def test_one_graph_in_evaluation_without_a_warning(network_and_images):
    network, images = network_and_images
    compiled = torch.compile(network.eval(), backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", ".*under torch.compile")
        outputs = as_tuple(compiled(images))
    torch.testing.assert_close(outputs, as_tuple(network(images)))
    assert warnings_of(caught) == []


def test_one_graph_with_the_same_outputs_and_gradients(name, network_and_images):
    """Compiled training of a 2D xLSTM on a CPU gets one warning, and no other network gets any."""
    network, images = network_and_images
    network.train()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    expected, expected_gradients = outputs_and_gradients(network, network, images)
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])

    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", ".*under torch.compile")
        outputs, gradients = outputs_and_gradients(compiled, network, images)
        compiled(images)

    messages = warnings_of(caught)
    assert len(messages) == (name in SLOW_TO_TRAIN)
    assert not messages or messages[0].endswith("Train without torch.compile on a CPU.")
    torch.testing.assert_close(outputs, expected)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(gradient.norm() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        difference = (gradient - expected_gradients[name]).norm()
        # Sums may have another order. Gradients that vanish by an invariance are only rounding errors.
        assert difference <= 1e-4 * expected_gradients[name].norm() + 1e-6 * largest, name


@pytest.mark.parametrize("name", ["msvm", "xlstm-enc-2d"], indirect=True)
def test_one_graph_under_autocast(name, generator):
    torch.compiler.reset()
    build, size = NETWORKS[name]
    network, images = build().train(), torch.randn(2, 1, *size, generator=generator)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = as_tuple(compiled(images))
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    assert all(output.isfinite().all() for output in outputs)
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_one_graph_by_inductor_on_a_gpu(network_and_images, training):
    network, images = network_and_images
    network, images = network.cuda().train(training), images.cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        expected, _ = outputs_and_gradients(network, network, images)
        outputs, gradients = outputs_and_gradients(torch.compile(network, fullgraph=True), network, images)
    for output, wanted in zip(outputs, expected, strict=True):
        assert (output.float() - wanted.float()).norm() <= 0.05 * wanted.float().norm()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
