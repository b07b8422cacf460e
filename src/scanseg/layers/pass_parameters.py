"""Conversion of all parameters at the start of a pass."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from scanseg.layers.autocast import autocast_dtype
from scanseg.layers.channel_linear import ChannelLinear
from scanseg.layers.convolution import PlainConvolution
from scanseg.layers.feed_forward import FeedForward
from scanseg.layers.ss2d import SS2D
from scanseg.layers.upsampling import NormedExpansion
from scanseg.ops import Wanted, is_one_operator, weights_converted

_KINDS = ((SS2D, FeedForward, NormedExpansion), (ChannelLinear, PlainConvolution))
"""Modules that request converted parameters. The first ones contain some of the second ones."""


def parameters_converted(network: nn.Module, x: Tensor) -> AbstractContextManager[object]:
    """Convert the parameters of a network at once.

    The pass runs in the block. It has an effect where branches are one operator, outside of `torch.compile`.

    Args:
        network: The network.
        x: Its images.
    """
    if torch.compiler.is_compiling() or not is_one_operator(x):
        return nullcontext()
    return weights_converted(network, x, autocast_dtype(x) or x.dtype, partial(_requests, network))


def _requests(network: nn.Module) -> Iterator[Sequence[Wanted]]:
    """Return the requests of all modules.

    Layers inside a module with requests are left out.
    """
    known: set[int] = set()
    for kinds in _KINDS:
        for module in network.modules():
            if isinstance(module, kinds):
                wanted = module.converted()
                if id(wanted[0].sources[0]) not in known:
                    known |= {id(source) for each in wanted for source in each.sources}
                    yield wanted
