"""The conversion of all parameters of a pass on a GPU."""

import pytest
import torch

from scanseg.networks import MSVMUNet
from scanseg.ops import weights_converted
from scanseg.ops._support import pass_weights
from scanseg.ops._support.pass_weights import converted_weights

from .test_pass_weights import Parameters, assert_converted

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_form_equals_its_definition(dtype):
    module = Parameters().cuda()
    for _ in range(2):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.75)
        with weights_converted(module, module.bias, dtype, module.requests):
            found = converted_weights(module.weight, dtype)
        assert found is not None
        assert_converted([tensor.cpu() for tensor in found], module.cpu().expected(dtype))
        module.cuda()


def results(network, images):
    """Return logits, gradients, and logits in evaluation."""
    torch.manual_seed(0)
    network.train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = network(images)
    weights = torch.linspace(-1, 1, logits.numel(), device="cuda").view_as(logits)
    gradients = torch.autograd.grad((logits.float() * weights).sum(), list(network.parameters()))
    network.eval()
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        evaluated = network(images[:1])
    return logits.detach(), torch.cat([gradient.flatten() for gradient in gradients]), evaluated


def relative_error(found, expected):
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def test_a_network_computes_the_same_as_with_conversions_in_each_branch(monkeypatch):
    torch.manual_seed(0)
    network = MSVMUNet(1, 3, dims=(16, 16, 24, 32), depths=(1, 2, 1, 1), decoder_depth=1).cuda()
    images = torch.randn(2, 1, 64, 96, device="cuda")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = results(network, images)
    network.load_state_dict(state)
    again = results(network, images)
    assert all(torch.equal(first, second) for first, second in zip(found, again, strict=True))
    network.load_state_dict(state)
    monkeypatch.setattr(pass_weights, "MISSING", "not used in this test")
    expected = results(network, images)
    errors = [relative_error(*pair) for pair in zip(found, expected, strict=True)]
    assert max(errors) < 0.02, errors
