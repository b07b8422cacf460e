"""Compilation of a network's GPU kernels in threads, before its first pass.

Triton compiles a kernel at its first launch, one after the other, which takes a minute or more for a network. Our own
training and prediction compile ahead. A network in a loop of the user's own does so here.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from scanseg.networks.buffers import buffers_kept
from scanseg.ops import can_compile_ahead, compile_ahead, cores_for_compiling, is_compiling_ahead
from scanseg.runtime import autocast_without_cache

_LOGGER = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """Properties of a pass that decide on its kernels, besides sizes."""

    training: bool
    with_gradients: bool
    dtype: torch.dtype
    autocast: torch.dtype | None


_prepared: "WeakKeyDictionary[nn.Module, set[_Kind]]" = WeakKeyDictionary()
"""Kinds of passes whose kernels are compiled, or are being compiled by the caller."""


def compile_before_first_pass(network: nn.Module, images: Tensor) -> None:
    """Compile the kernels of the first pass of a kind.

    The kernels are requested by a pass that computes nothing. Buffers, gradients and random generators are unchanged.
    Passes that something intercepts are left alone: under tracing, in the capture of a CUDA graph, with hooks on
    modules, and in distributed trainings. Their kernels are compiled at the first launch.

    Args:
        network: The network.
        images: Images of the pass.
    """
    kind = _kind(network, images)
    kinds = _prepared.setdefault(network, set())
    if kind in kinds:
        return
    if is_compiling_ahead():
        kinds.add(kind)
        return
    if not can_compile_ahead(images):
        return
    kinds.add(kind)
    if (torch.distributed.is_available() and torch.distributed.is_initialized()) or any(_hooks(network)):
        return
    try:
        _request(network, images.detach(), with_gradients=kind.with_gradients)
    except RuntimeError as error:  # memory ran out, for example. The pass itself raises again, if at all.
        _LOGGER.debug("kernels are compiled at their first launch: %s", error)
        torch.cuda.empty_cache()


def _kind(network: nn.Module, images: Tensor) -> _Kind:
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return _Kind(network.training, torch.is_grad_enabled(), images.dtype, autocast)


def _hooks(network: nn.Module) -> Iterator[bool]:
    """Return for each module whether it has hooks.

    They would see meaningless values.
    """
    for module in network.modules():
        yield bool(module._forward_hooks or module._forward_pre_hooks)
        yield bool(module._backward_hooks or module._backward_pre_hooks)


def _request(network: nn.Module, images: Tensor, *, with_gradients: bool) -> None:
    """Run a pass inside `compile_ahead`.

    Its backward pass runs in this thread. The thread of autograd may launch kernels for others.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with (
        compile_ahead(cores_for_compiling()),
        buffers_kept(network),
        autocast_without_cache(),
        torch.random.fork_rng(devices=[images.device] if images.is_cuda else []),
        torch.autograd.set_multithreading_enabled(False),
    ):
        outputs = network.forward(images)
        if with_gradients and parameters:
            outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
            grads = [torch.zeros_like(output) for output in outputs]
            torch.autograd.grad(outputs, parameters, grads, allow_unused=True)
