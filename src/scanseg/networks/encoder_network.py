"""Base class of the networks: encoder maps, a frozen encoder, padding."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.errors import InputError
from scanseg.layers import convolution
from scanseg.networks.first_pass import compile_before_first_pass
from scanseg.networks.input_check import check_image, padded_size

Logits = Tensor | tuple[Tensor, ...]


class EncoderNetwork(nn.Module):
    """Base class of networks with an encoder and a decoder.

    Subclasses set the attributes before they are called.

    Attributes:
        title: Name of the network, for messages.
        image_channels: Valid channel counts of images.
        total_stride: Product of the strides of all stages, per axis.
        pad: Pad images of any size to a multiple of the total stride, and crop the logits.
    """

    title: str
    image_channels: frozenset[int]
    total_stride: tuple[int, ...]
    pad: bool

    @abstractmethod
    def features(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> tuple[Float[Tensor, "batch feature *stage_space"], ...]:
        """Return the maps of the encoder stages, which the decoder reads.

        Args:
            x: Images of shape (batch, channel, *space).

        Returns:
            One map of shape (batch, feature, *stage_space) for each stage, the highest resolution first. Stage s has
            the size of the (padded) image divided by the strides of the stages up to s.

        Raises:
            InputError: The images have another rank, channel count or size.
        """

    @abstractmethod
    def encoder_modules(self) -> Sequence[nn.Module]:
        """Return the modules that compute `features`, sequence layers included."""

    @abstractmethod
    def class_layers(self) -> Sequence[nn.Conv2d | nn.Conv3d]:
        """Return the last layers, which map features to logits."""

    def replace_classes(self, num_classes: int) -> None:
        """Replace the last layers for another number of classes.

        All other weights are kept. The new layers have He-normal weights and zero biases. Make optimizers afterwards.

        Args:
            num_classes: Channels of the logits, at least 1.

        Raises:
            InputError: The number is below 1.
        """
        if num_classes < 1:
            raise InputError(
                f"num_classes: expected at least 1, got {num_classes}. Count the background too."
            )
        for layer in self.class_layers():
            new = convolution(layer.in_channels, num_classes, kernel_size=layer.kernel_size).to(layer.weight)
            layer.out_channels, layer.weight, layer.bias = num_classes, new.weight, new.bias

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the modules that compute `features`."""
        for module in self.encoder_modules():
            yield from module.parameters()

    def freeze_encoder(self, *, frozen: bool = True) -> None:
        """Exclude the parameters of the encoder from training.

        All parameters that compute `features` are frozen, in sequence layers too.

        Args:
            frozen: Freeze the encoder. False: train it again.
        """
        for parameter in self.encoder_parameters():
            parameter.requires_grad_(not frozen)

    def checked(
        self, x: Float[Tensor, "batch channel *space"], *, min_deepest_voxels: int
    ) -> Float[Tensor, "batch channel *padded_space"]:
        """Check images, and pad them if the network pads.

        Padding repeats the last voxels at the end of each axis. The first images on a GPU start the compilation of
        kernels.

        Args:
            x: Images of shape (batch, channel, *space).
            min_deepest_voxels: Least number of voxels of the deepest map.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        if self.pad and x.ndim == len(self.total_stride) + 2 and x.numel() > 0:
            size = self.padded_size(x.shape[2:], min_deepest_voxels=min_deepest_voxels)
            margins = [after - before for before, after in zip(x.shape[2:], size, strict=True)]
            if any(margins):
                x = F.pad(x, [end for margin in reversed(margins) for end in (0, margin)], mode="replicate")
        check_image(
            x,
            network=self.title,
            channels=self.image_channels,
            total_stride=self.total_stride,
            min_deepest_voxels=min_deepest_voxels,
        )
        if x.is_cuda and not torch.compiler.is_compiling():
            compile_before_first_pass(self, x)
        return x

    def padded_size(self, size: Sequence[int], *, min_deepest_voxels: int) -> tuple[int, ...]:
        """Return the size to which images are padded.

        Args:
            size: Voxels per axis.
            min_deepest_voxels: Least number of voxels of the deepest map.
        """
        return padded_size(size, total_stride=self.total_stride, min_deepest_voxels=min_deepest_voxels)

    def cropped(self, logits: Logits, x: Float[Tensor, "batch channel *space"]) -> Logits:
        """Crop logits of padded images.

        Args:
            logits: Logits, or a tuple of them, the highest resolution first.
            x: The images before padding.

        Returns:
            The logits that cover the images. At the highest resolution they have the size of the images.
        """
        if not self.pad:
            return logits
        if isinstance(logits, tuple):
            return tuple(_covering(each, x.shape[2:], logits[0].shape[2:]) for each in logits)
        return _covering(logits, x.shape[2:], logits.shape[2:])


def _covering(logits: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Crop logits of any resolution to the voxels that cover an image."""
    for axis, (voxels, whole) in enumerate(zip(size, padded, strict=True), start=2):
        logits = logits.narrow(axis, 0, -(-voxels * logits.shape[axis] // whole))
    return logits
