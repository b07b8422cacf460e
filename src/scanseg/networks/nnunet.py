"""The U-Nets of nnU-Net: plain, and with a residual encoder."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.layers import BasicBlockD, ConvNormAct, convolution, transposed_convolution, zero_init_residuals
from scanseg.networks.placement import ConvolutionalNetwork
from scanseg.networks.stage_logits import class_layers, stage_logits
from scanseg.networks.stage_shapes import PerStage, StageShapes
from scanseg.ops import upsample_join

_DEFAULT_BLOCKS = (1, 3, 4, 6)
"""Residual blocks of the first encoder stages of nnU-Net. Deeper stages have as many as the last one."""


class PlainUNet(ConvolutionalNetwork):
    """The plain convolutional U-Net of nnU-Net.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.

    While training with `deep_supervision`, the network returns a tuple with the logits of every decoder stage, the
    highest resolution first. Otherwise it returns the logits of the highest resolution, one tensor. The attribute
    `deep_supervision` can be switched off later.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        spatial_dims: Number of spatial axes: 2 or 3. `None`: that of the other arguments.
        strides: Stride of the first convolution of each stage, one number per axis or one for all axes. The first stage
            has stride 1. A single number is the stride of all other stages. `None`: 2.
        features: Features of each stage. `None`: min(32 * 2^stage, 512 in 2D and 320 in 3D), with 6 stages unless
            strides or kernel sizes are given for each stage.
        kernel_sizes: Odd kernel size of each stage, one number per axis or one for all axes. A single number is the
            kernel size of all stages. `None`: 3.
        num_convs_encoder: Convolutions of each encoder stage. `None`: 2.
        num_convs_decoder: Convolutions of each decoder stage, the deepest first. `None`: 2.
        deep_supervision: Return the logits of every decoder stage while training. False: the only head is that of the
            highest resolution.
        pad: Pad images of any size to a multiple of the total stride, and crop the logits to the images.

    Raises:
        InputError: The arguments are inconsistent.

    Example:
        >>> import torch
        >>> from scanseg.networks import PlainUNet
        >>> network = PlainUNet(1, 3, strides=((1, 1), (2, 2), (2, 2)), features=(4, 8, 8))
        >>> [tuple(logits.shape) for logits in network(torch.zeros(2, 1, 16, 16))]
        [(2, 3, 16, 16), (2, 3, 8, 8)]
        >>> network.eval()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int | None = None,
        strides: PerStage | None = None,
        features: Sequence[int] | None = None,
        kernel_sizes: PerStage | None = None,
        num_convs_encoder: Sequence[int] | None = None,
        num_convs_decoder: Sequence[int] | None = None,
        deep_supervision: bool = True,
        pad: bool = False,
    ) -> None:
        super().__init__()
        shapes = StageShapes.complete(
            strides, features=features, kernel_sizes=kernel_sizes, spatial_dims=spatial_dims
        )
        counts = _counts("num_convs_encoder", num_convs_encoder, shapes.num_stages)
        inputs = (in_channels, *shapes.features[:-1])
        self.title = "Plain U-Net"
        self.in_channels = in_channels
        self.image_channels = frozenset({in_channels})
        self.total_stride = shapes.total_stride
        self.pad = pad
        self.deep_supervision = deep_supervision
        self.encoder = nn.ModuleList(
            _convolutions(
                channels,
                shapes.features[stage],
                kernel_size=shapes.kernel_sizes[stage],
                count=counts[stage],
                stride=shapes.strides[stage],
            )
            for stage, channels in enumerate(inputs)
        )
        self.decoder = UNetDecoder(
            num_classes, shapes=shapes, num_convs=num_convs_decoder, deep_supervision=deep_supervision
        )

    def forward(
        self, x: Float[Tensor, "batch channel *space"], *, every_stage: bool | None = None
    ) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
        """Return the logits.

        Args:
            x: Images of shape (batch, channel, *space). The spatial axes are divisible by the total stride, unless the
                network pads.
            every_stage: Return the logits of every decoder stage, the highest resolution first. `None`: only while
                training with `deep_supervision`.

        Returns:
            Logits of shape (batch, class, *space), or a tuple of them with one entry per decoder stage.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        return self.cropped(self.decoder(self.features(x), every_stage=every_stage), x)

    def features(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> tuple[Float[Tensor, "batch feature *stage_space"], ...]:
        """Return the maps of the encoder stages.

        Args:
            x: Images of shape (batch, channel, *space).

        Returns:
            One map of shape (batch, feature, *stage_space) for each stage, the highest resolution first.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        x = self.to_memory_format(self.checked(x, min_deepest_voxels=2))
        return tuple(_run_stages(self.encoder, x))

    def encoder_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules of the encoder."""
        return (self.encoder,)

    def class_layers(self) -> tuple[nn.Conv2d | nn.Conv3d, ...]:
        """Return the last layer of each decoder stage with logits."""
        return class_layers(self.decoder.heads)


class ResidualUNet(ConvolutionalNetwork):
    """The residual-encoder U-Net of nnU-Net.

    Source: Isensee et al. 2024, arXiv:2404.09556.

    While training with `deep_supervision`, the network returns a tuple with the logits of every decoder stage, the
    highest resolution first. Otherwise it returns the logits of the highest resolution, one tensor. The attribute
    `deep_supervision` can be switched off later. As in nnU-Net, the scales of the last norms of residual blocks are
    initialized with 0. Each block initially equals its shortcut.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        spatial_dims: Number of spatial axes: 2 or 3. `None`: that of the other arguments.
        strides: Stride of the first convolution of each stage, one number per axis or one for all axes. The first stage
            has stride 1. A single number is the stride of all other stages. `None`: 2.
        features: Features of each stage. `None`: min(32 * 2^stage, 512 in 2D and 320 in 3D), with 6 stages unless
            strides or kernel sizes are given for each stage.
        kernel_sizes: Odd kernel size of each stage, one number per axis or one for all axes. A single number is the
            kernel size of all stages. `None`: 3.
        num_blocks_encoder: Residual blocks of each encoder stage. `None`: 1, 3, 4, 6, 6 ..., as in nnU-Net.
        num_convs_decoder: Convolutions of each decoder stage, the deepest first. `None`: 1.
        deep_supervision: Return the logits of every decoder stage while training. False: the only head is that of the
            highest resolution.
        pad: Pad images of any size to a multiple of the total stride, and crop the logits to the images.

    Raises:
        InputError: The arguments are inconsistent.

    Example:
        >>> import torch
        >>> from scanseg.networks import ResidualUNet
        >>> network = ResidualUNet(
        ...     1, 3, strides=((1, 1, 1), (1, 2, 2)), num_blocks_encoder=(1, 1), features=(4, 8)
        ... )
        >>> network.eval()(torch.zeros(2, 1, 4, 8, 8)).shape
        torch.Size([2, 3, 4, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int | None = None,
        strides: PerStage | None = None,
        features: Sequence[int] | None = None,
        kernel_sizes: PerStage | None = None,
        num_blocks_encoder: Sequence[int] | None = None,
        num_convs_decoder: Sequence[int] | None = None,
        deep_supervision: bool = True,
        pad: bool = False,
    ) -> None:
        super().__init__()
        shapes = StageShapes.complete(
            strides, features=features, kernel_sizes=kernel_sizes, spatial_dims=spatial_dims
        )
        blocks = num_blocks_encoder or [_DEFAULT_BLOCKS[min(s, 3)] for s in range(shapes.num_stages)]
        counts = _counts("num_blocks_encoder", blocks, shapes.num_stages)
        inputs = (shapes.features[0], *shapes.features[:-1])
        self.title = "Residual U-Net"
        self.in_channels = in_channels
        self.image_channels = frozenset({in_channels})
        self.total_stride = shapes.total_stride
        self.pad = pad
        self.deep_supervision = deep_supervision
        self.stem = ConvNormAct(in_channels, shapes.features[0], kernel_size=shapes.kernel_sizes[0])
        self.encoder = nn.ModuleList(
            _residual_blocks(
                channels,
                shapes.features[stage],
                kernel_size=shapes.kernel_sizes[stage],
                count=counts[stage],
                stride=shapes.strides[stage],
            )
            for stage, channels in enumerate(inputs)
        )
        self.decoder = UNetDecoder(
            num_classes,
            shapes=shapes,
            num_convs=num_convs_decoder or (1,) * (shapes.num_stages - 1),
            deep_supervision=deep_supervision,
        )
        zero_init_residuals(self.encoder)

    def forward(
        self, x: Float[Tensor, "batch channel *space"], *, every_stage: bool | None = None
    ) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
        """Return the logits.

        Args:
            x: Images of shape (batch, channel, *space). The spatial axes are divisible by the total stride, unless the
                network pads.
            every_stage: Return the logits of every decoder stage, the highest resolution first. `None`: only while
                training with `deep_supervision`.

        Returns:
            Logits of shape (batch, class, *space), or a tuple of them with one entry per decoder stage.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        return self.cropped(self.decoder(self.features(x), every_stage=every_stage), x)

    def features(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> tuple[Float[Tensor, "batch feature *stage_space"], ...]:
        """Return the maps of the encoder stages.

        Args:
            x: Images of shape (batch, channel, *space).

        Returns:
            One map of shape (batch, feature, *stage_space) for each stage, the highest resolution first.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        x = self.to_memory_format(self.checked(x, min_deepest_voxels=2))
        return tuple(_run_stages(self.encoder, self.stem(x)))

    def encoder_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules of the encoder."""
        return self.stem, self.encoder

    def class_layers(self) -> tuple[nn.Conv2d | nn.Conv3d, ...]:
        """Return the last layer of each decoder stage with logits."""
        return class_layers(self.decoder.heads)


class UNetDecoder(nn.Module):
    """The decoder of nnU-Net's U-Nets.

    Each stage upsamples by a transposed convolution, joins the skip, and applies convolutions.

    Args:
        num_classes: Channels of the logits.
        shapes: Stages of the encoder.
        num_convs: Convolutions of each stage, the deepest first. `None`: 2.
        deep_supervision: Give every stage a head. Otherwise only the last stage has one.

    Raises:
        InputError: `num_convs` does not have one positive number per stage.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        shapes: StageShapes,
        num_convs: Sequence[int] | None,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        num_stages = shapes.num_stages - 1
        counts = _counts("num_convs_decoder", num_convs, num_stages)
        self.upsamplings, self.stages, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, level in enumerate(reversed(range(num_stages))):
            dim, kernel = shapes.features[level], shapes.kernel_sizes[level]
            self.upsamplings.append(
                transposed_convolution(shapes.features[level + 1], dim, stride=shapes.strides[level + 1])
            )
            self.stages.append(_convolutions(2 * dim, dim, kernel_size=kernel, count=counts[index]))
            if deep_supervision or level == 0:
                self.heads.append(convolution(dim, num_classes, kernel_size=(1,) * shapes.num_axes))

    def forward(
        self, skips: Sequence[Float[Tensor, "batch feature *stage_space"]], *, every_stage: bool
    ) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
        """Return the logits of the last stage or of every stage.

        Args:
            skips: Maps of the encoder stages of shape (batch, feature, *stage_space), the highest resolution first.
            every_stage: Return the logits of every stage, the highest resolution first.

        Returns:
            Logits of shape (batch, class, *space), or a tuple of them with one entry per stage.
        """
        x, maps = skips[-1], []
        for upsample, stage, skip in zip(self.upsamplings, self.stages, skips[:-1][::-1], strict=True):
            raised = upsample(x)
            x = stage(upsample_join(raised, skip, factors=(1,) * (raised.ndim - 2)))
            maps.append(x)
        return stage_logits(self.heads, maps, every_stage=every_stage)


def _run_stages(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    skips = []
    for stage in stages:
        x = stage(x)
        skips.append(x)
    return skips


def _convolutions(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    count: int,
    stride: Sequence[int] | None = None,
) -> nn.Sequential:
    first = ConvNormAct(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
    others = (ConvNormAct(out_channels, out_channels, kernel_size=kernel_size) for _ in range(count - 1))
    return nn.Sequential(first, *others)


def _residual_blocks(
    in_channels: int, out_channels: int, *, kernel_size: Sequence[int], count: int, stride: Sequence[int]
) -> nn.Sequential:
    first = BasicBlockD(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
    others = (BasicBlockD(out_channels, out_channels, kernel_size=kernel_size) for _ in range(count - 1))
    return nn.Sequential(first, *others)


def _counts(name: str, counts: Sequence[int] | None, num_stages: int) -> Sequence[int]:
    chosen = counts if counts is not None else (2,) * num_stages
    if len(chosen) != num_stages or min(chosen) < 1:
        raise InputError(
            f"{name}: expected a positive number for each of {num_stages} stages, got {tuple(chosen)}."
        )
    return chosen
