"""Device and memory format of networks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.networks.encoder_network import EncoderNetwork

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Channels-last memory formats, by the number of spatial axes."""


class ConvolutionalNetwork(EncoderNetwork):
    """Base class of convolutional networks with a selectable memory format.

    `place_network` and `set_channels_last` select it.
    """

    channels_last: bool = False
    """The maps of the network are channels-last in memory."""

    def to_memory_format(
        self, images: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Return images in the memory format of the network's maps.

        A single channel has the same memory order in both formats. Convolutions treat it as channels-first unless its
        strides are those of channels-last. The copy sets them, and is small compared to the maps.

        Args:
            images: Images of shape (batch, channel, *space).

        Returns:
            The images themselves, or a channels-last copy.
        """
        if not self.channels_last:
            return images
        return torch.empty_like(images, memory_format=CHANNELS_LAST[images.ndim - 2]).copy_(images)


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in the fastest memory format there.

    On CUDA the maps of a `ConvolutionalNetwork` are channels-last. Tensor cores compute convolutions in this format.
    Otherwise every map would be transposed, forward and backward (16 % of a step). The format of the weights determines
    that of all maps. It therefore persists in copies, in the optimizer and with loaded weights. On other devices maps
    stay channels-first: on CPUs channels-last was not faster (docs/experiments.md).

    Args:
        network: The network. It is changed in place.
        device: Target device.

    Returns:
        The same network.

    Example:
        >>> import torch
        >>> from scanseg.networks import PlainUNet, place_network
        >>> network = place_network(PlainUNet(1, 2, strides=((1, 1), (2, 2)), features=(4, 8)), torch.device("cpu"))
        >>> network.channels_last
        False
    """
    network = network.to(device)
    if isinstance(network, ConvolutionalNetwork):
        set_channels_last(network, channels_last=device.type == "cuda")
    return network


def set_channels_last(network: ConvolutionalNetwork, *, channels_last: bool) -> None:
    """Set the memory format of a network's weights and maps.

    Args:
        network: The network. It is changed in place.
        channels_last: Channels-last instead of channels-first.

    Example:
        >>> import torch
        >>> from scanseg.networks import PlainUNet, set_channels_last
        >>> network = PlainUNet(3, 2, strides=((1, 1), (2, 2)), features=(4, 8))
        >>> set_channels_last(network, channels_last=True)
        >>> weight = next(network.parameters())
        >>> tuple(weight.shape), weight.is_contiguous(memory_format=torch.channels_last)
        ((4, 3, 3, 3), True)
    """
    network.channels_last = channels_last
    for parameter in network.parameters():
        last = CHANNELS_LAST.get(parameter.ndim - 2)
        if last is not None:
            memory_format = last if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
