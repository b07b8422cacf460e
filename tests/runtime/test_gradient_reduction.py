"""Gradients are averaged over processes while the backward pass runs."""

import pytest
import torch
from torch import nn

from scanseg.runtime import GradientReduction, gradient_reduction


class Messages:
    """Stands for the other process of two, which has the same gradients."""

    def __init__(self, monkeypatch):
        self.sent, self.waited = [], 0
        monkeypatch.setattr(gradient_reduction.dist, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor, *, async_op):
        assert async_op
        self.sent.append(tensor.numel())
        self.tensor = tensor
        tensor.mul_(2)
        return self

    def wait(self):
        self.waited += 1


@pytest.fixture
def messages(monkeypatch):
    monkeypatch.setattr(gradient_reduction, "_BYTES_OF_BUCKET", 4 * 30)
    return Messages(monkeypatch)


def test_groups_are_sent_before_the_backward_pass_ends(messages, generator):
    layers = [nn.Linear(5, 5) for _ in range(3)]
    network = nn.Sequential(*layers)
    images = torch.randn(4, 5, generator=generator).requires_grad_()
    network(images).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad(set_to_none=True)
    sent_at_first_layer = []
    layers[0].register_full_backward_hook(lambda *_: sent_at_first_layer.append(list(messages.sent)))

    reduction = GradientReduction(list(network.parameters()), world_size=2)
    for _ in range(2):
        network.zero_grad(set_to_none=True)
        messages.sent.clear()
        loss = network(images).square().mean()
        with reduction.during_backward():
            loss.backward()
        assert messages.sent == [30, 30, 30]
        for parameter, gradient in zip(network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
    assert sent_at_first_layer[0][:1] == [30]
    assert messages.waited == 6
    # No hook is left.
    network.zero_grad(set_to_none=True)
    network(images).square().mean().backward()
    assert len(messages.sent) == 3


def test_parameters_without_gradients(messages, generator):
    used, unused, frozen = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5).requires_grad_(False)
    parameters = [*used.parameters(), *unused.parameters(), *frozen.parameters()]
    reduction = GradientReduction(parameters, world_size=2)
    loss = used(torch.randn(4, 5, generator=generator)).square().mean()
    expected = torch.autograd.grad(loss, list(used.parameters()), retain_graph=True)
    with reduction.during_backward():
        loss.backward()
    for parameter, gradient in zip(used.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert all(parameter.grad is None for parameter in [*unused.parameters(), *frozen.parameters()])
    assert messages.sent == [30, 30]


def test_types_are_sent_apart(messages, generator):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())
    reduction = GradientReduction(list(network.parameters()), world_size=2)
    x = torch.randn(2, 3, generator=generator)
    loss = network[1](network[0](x).double()).mean()
    with reduction.during_backward():
        loss.backward()
    assert messages.sent == [12, 12]
    assert [parameter.grad.dtype for parameter in network.parameters()] == [torch.float32] * 2 + [
        torch.float64
    ] * 2


def test_gradients_have_the_strides_of_their_parameters(messages, generator):
    """Fused optimizers refuse others. Weights of convolutions may be channels-last."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8, generator=generator)
    expected = torch.autograd.grad(network(images).square().mean(), list(network.parameters()))
    reduction = GradientReduction(list(network.parameters()), world_size=2)
    loss = network(images).square().mean()
    with reduction.during_backward():
        loss.backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert parameter.grad.stride() == parameter.stride()
        torch.testing.assert_close(parameter.grad, gradient)
    torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True).step()
