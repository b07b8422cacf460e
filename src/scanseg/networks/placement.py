"""Where a network lies: its device, and the order of its maps in memory."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""The memory format in which the channels of a voxel are neighbours, by the number of spatial axes."""


class ConvolutionalNetwork(nn.Module):
    """A network of convolutions, whose maps may lie channels-last in memory: `place_network` decides."""

    channels_last: bool = False

    def lay_out(self, images: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Return images in the format of the network's maps.

        A single channel lies the same way in both formats, and convolutions take it for channels-first unless its
        strides say otherwise: hence the copy, which is small beside any map.

        Args:
            images: The images.
        """
        if not self.channels_last:
            return images
        return torch.empty_like(images, memory_format=CHANNELS_LAST[images.ndim - 2]).copy_(images)


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in the memory format that is fastest there.

    A `ConvolutionalNetwork` keeps its maps channels-last on CUDA: tensor cores read convolutions so, and would turn
    every map around otherwise, forward and backward (16 % of a step). The format of the weights decides that of all
    maps, so that it holds wherever the network goes: copies, optimizer, loaded weights. Elsewhere maps stay
    channels-first: on CPUs the other order gained nothing (docs/experiments.md).

    Args:
        network: The network; it is changed in place.
        device: Where to.
    """
    network = network.to(device)
    if isinstance(network, ConvolutionalNetwork):
        set_channels_last(network, channels_last=device.type == "cuda")
    return network


def set_channels_last(network: ConvolutionalNetwork, *, channels_last: bool) -> None:
    """Bring a network's weights, and so its maps, into a memory format.

    Args:
        network: The network; it is changed in place.
        channels_last: Whether the channels of a voxel are neighbours.
    """
    network.channels_last = channels_last
    for parameter in network.parameters():
        last = CHANNELS_LAST.get(parameter.ndim - 2)
        if last is not None:
            memory_format = last if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
