"""The state of an optimizer, stored and restored."""

import torch

from scanseg.specs import AdamWSpec, SGDSpec
from scanseg.training.optimizers import build_optimizer, restore_optimizer, store_optimizer


def take_step(network, optimizer, x):
    optimizer.zero_grad()
    network(x).square().mean().backward()
    optimizer.step()


def test_restored_state_has_the_memory_format_of_its_parameters(generator):
    """Fused steps on a GPU refuse anything else; a file holds channels-first tensors."""
    x = torch.randn(2, 3, 6, 6, generator=generator)
    for spec in (AdamWSpec(), SGDSpec()):
        networks = [torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
        optimizers = [build_optimizer(network, spec) for network in networks]
        take_step(networks[0], optimizers[0], x)
        networks[1].load_state_dict(networks[0].state_dict())
        tensors, groups = store_optimizer(optimizers[0])
        stored = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        restore_optimizer(optimizers[1], stored, groups)
        states = [
            optimizer.state[network.weight] for network, optimizer in zip(networks, optimizers, strict=True)
        ]
        for name, value in states[0].items():
            assert torch.equal(states[1][name], value)
            if value.ndim == 4:
                assert states[1][name].stride() == networks[1].weight.stride() == (27, 1, 9, 3)
        for network, optimizer in zip(networks, optimizers, strict=True):
            take_step(network, optimizer, x)
        assert torch.equal(networks[0].weight, networks[1].weight)


def test_steps_are_fused_where_the_device_that_goes_on_wants_it(generator):
    network = torch.nn.Conv2d(3, 4, 3)
    for spec in (AdamWSpec(), SGDSpec()):
        optimizer = build_optimizer(network, spec)
        take_step(network, optimizer, torch.randn(2, 3, 6, 6, generator=generator))
        tensors, groups = store_optimizer(optimizer)
        elsewhere = tuple({**group, "fused": True} for group in groups)

        restore_optimizer(optimizer, tensors, elsewhere)

        assert not any(group["fused"] for group in optimizer.param_groups)


def test_a_first_step_that_is_skipped_leaves_no_rubbish(monkeypatch):
    """In float16 the first gradients overflow; fused steps then do nothing, not even fill their momentum."""
    network = torch.nn.Linear(3, 4)
    optimizer = build_optimizer(network, SGDSpec())
    optimizer.param_groups[0]["fused"] = True
    network(torch.ones(2, 3)).sum().backward()
    before = network.weight.detach().clone()
    # As a GradScaler does, to every optimizer whose steps are fused; memory that is not set is rubbish.
    optimizer.found_inf, optimizer.grad_scale = torch.ones(()), None
    monkeypatch.setattr(torch, "empty_like", lambda x, **_: torch.full_like(x, torch.nan))
    optimizer.step()
    optimizer.found_inf = torch.zeros(())
    optimizer.step()

    lr = optimizer.param_groups[0]["lr"]
    decayed = network.weight.grad + SGDSpec().weight_decay * before
    torch.testing.assert_close(network.weight, before - lr * 1.99 * decayed)
