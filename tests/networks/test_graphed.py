"""Networks that replay CUDA graphs in a loop of the user's own."""

import copy

import pytest
import torch

from scanseg.networks import MSVMUNet, XLSTMUNet, graphed, place_network
from scanseg.networks.graphed import MAX_GRAPHS


def msvm():
    return MSVMUNet(1, 3, dims=(16, 16, 24, 32), depths=(1, 1, 1, 1), decoder_depth=1, drop_path=0.0)


def xlstm():
    strides = ((1, 1), (2, 2), (2, 2))
    return XLSTMUNet(1, 3, patch_size=(32, 32), strides=strides, features=(8, 12, 16))


@pytest.fixture(params=[msvm, xlstm], ids=["msvm", "xlstm"])
def pair(request):
    """Return two equal networks on the GPU. The second one replays graphs."""
    torch.manual_seed(0)
    network = place_network(request.param(), torch.device("cuda"))
    return network, graphed(copy.deepcopy(network))


def images_of(generator, batch=2, size=64):
    return torch.randn(batch, 1, size, size, generator=generator).cuda()


def loss_of(outputs):
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    return sum(output.float().square().mean() for output in outputs)


def train(network, batches, *, accumulation=1, autocast=False):
    """Run a plain loop with gradient clipping, and return losses and parameters."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step, images in enumerate(batches, start=1):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(network(images)) / accumulation
        loss.backward()
        losses.append(loss.item())
        if step % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return losses, [parameter.detach().clone() for parameter in network.parameters()]


def test_on_the_cpu_passes_run_directly(generator):
    network = graphed(msvm())
    x = torch.randn(2, 1, 64, 64, generator=generator)
    loss_of(network(x)).backward()
    assert network.num_graphs == 0
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network.eval()(x), network.network(x))


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_plain_loop_gives_the_same_network(pair, generator, accumulation, autocast):
    network, replayed = pair
    batches = [images_of(generator, size=32 if isinstance(network, XLSTMUNet) else 64) for _ in range(6)]
    options = {"accumulation": accumulation, "autocast": autocast}
    losses, weights = train(network, batches, **options)
    found, others = train(replayed, batches, **options)
    assert replayed.num_graphs == 1
    # cuDNN may choose other kernels, which sum in another order.
    bound = 2e-2 if autocast else 2e-3
    assert found == pytest.approx(losses, rel=bound)
    for weight, other in zip(weights, others, strict=True):
        assert (weight - other).norm() <= bound * weight.norm() + bound
    for buffer, other in zip(network.buffers(), replayed.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=bound, atol=bound)


@pytest.mark.gpu
def test_kinds_of_passes_have_graphs_up_to_a_limit(pair, generator):
    network, replayed = pair
    size = 32 if isinstance(network, XLSTMUNet) else 64
    network.eval(), replayed.eval()
    with torch.no_grad():
        for batch in (1, 2, 3, 4, 5, 1):
            images = images_of(generator, batch, size)
            torch.testing.assert_close(replayed(images), network(images), rtol=1e-3, atol=1e-3)
    assert replayed.num_graphs == MAX_GRAPHS


@pytest.mark.gpu
def test_weights_that_change_in_place_are_used_and_moved_ones_captured_again(pair, generator):
    network, replayed = pair
    images = images_of(generator, 1, 32 if isinstance(network, XLSTMUNet) else 64)
    network.eval(), replayed.eval()
    with torch.no_grad():
        replayed(images)
        for module in (network, replayed):
            for parameter in module.parameters():
                parameter.mul_(1.1)
        torch.testing.assert_close(replayed(images), network(images), rtol=1e-3, atol=1e-3)
        for parameter in replayed.parameters():
            parameter.data = parameter.data.clone() * 0.9
        for parameter in network.parameters():
            parameter.mul_(0.9)
        torch.testing.assert_close(replayed(images), network(images), rtol=1e-3, atol=1e-3)
    assert replayed.num_graphs == 2


@pytest.mark.gpu
def test_a_backward_pass_after_the_next_forward_pass_is_refused(generator):
    network = graphed(msvm().cuda())
    first = loss_of(network(images_of(generator)))
    loss_of(network(images_of(generator)))
    with pytest.raises(RuntimeError, match=r"Call backward\(\) after each forward pass"):
        first.backward()


@pytest.mark.gpu
def test_a_network_that_reads_values_back_runs_directly(generator, caplog):
    class Reading(torch.nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    network, images = graphed(Reading()), images_of(generator)
    assert torch.equal(network(images), images * images.sum().item())
    assert "run directly" in caplog.text
    assert network.num_graphs == 0
