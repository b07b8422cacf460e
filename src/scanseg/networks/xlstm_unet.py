"""xLSTM-UNet: a 2D or 3D residual U-Net with mLSTM layers.

Source: Chen et al. 2024, arXiv:2407.01530.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.layers import (
    BasicBlockD,
    BasicResBlock,
    SequenceLayer,
    convolution,
    convolve,
    zero_init_residuals,
)
from scanseg.networks.input_check import check_size, warn_of_compiled_training
from scanseg.networks.placement import ConvolutionalNetwork
from scanseg.networks.sequence_plan import SequenceBlock, Traversal, encoder_sequence_layers, sequence_layer
from scanseg.networks.stage_logits import class_layers, stage_logits
from scanseg.networks.stage_shapes import PerStage, StageShapes
from scanseg.ops import upsample_join


class XLSTMUNet(ConvolutionalNetwork):
    """xLSTM-UNet, with the ablations of its paper as arguments.

    While training with `deep_supervision`, the network returns a tuple with the logits of every decoder stage, the
    highest resolution first. Otherwise it returns the logits of the highest resolution, one tensor. The attribute
    `deep_supervision` can be switched off later.

    Images may have any size that is divisible by the total stride, or any size with `pad`. The exception is a network
    with a stage whose tokens are its channels (`enc`, if the map at the patch size has at most as many voxels as
    features). Its images have the size of the patch.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch, which decides the tokens of `enc` as published. `None`:
            voxels are the tokens of every sequence layer, and images may have any valid size.
        spatial_dims: Number of spatial axes: 2 or 3. `None`: that of the other arguments.
        strides: Stride of the first convolution of each stage, one number per axis or one for all axes. The first stage
            has stride 1. A single number is the stride of all other stages. `None`: 2.
        features: Features of each stage. `None`: min(32 * 2^stage, 512 in 2D and 320 in 3D), with 6 stages unless
            strides or kernel sizes are given for each stage.
        kernel_sizes: Odd kernel size of each stage, one number per axis or one for all axes. A single number is the
            kernel size of all stages. `None`: 3.
        variant: `bot`: one sequence layer after the last encoder stage. `enc`: sequence layers along the encoder.
        num_blocks_encoder: Residual blocks of each stage in the first half of the encoder. Stages in the second half
            have one.
        num_blocks_decoder: Residual blocks of each stage in the first half of the decoder. Stages in the second half
            have one.
        sequence_block: Block of the sequence layers: `vil`, `mamba` (the block of U-Mamba), or `none`. With `none`,
            residual blocks replace the sequence layers in `enc`, and `bot` has no layer there.
        traversal: Order in which a sequence layer reads its tokens: `forward` as published, `backward`,
            `alternate` (forward and backward in turn, from layer to layer) or `bidirectional` (both in each
            layer, averaged).
        skip_full_resolution: Join the skip of the first encoder stage in the last decoder stage. `None`: as published
            (yes in 3D, no in 2D).
        deep_supervision: Return the logits of every decoder stage while training. False: the only head is that of the
            highest resolution.
        pad: Pad images of any size to a multiple of the total stride, and crop the logits to the images.
        zero_init_residual: Initialize the scale of the last norm of residual blocks without a convolution in the
            shortcut (`BasicBlockD`) with 0, as nnU-Net's residual encoder does. Each block initially equals its
            shortcut.

    Raises:
        InputError: The arguments are inconsistent.

    Example:
        >>> import torch
        >>> from scanseg.networks import XLSTMUNet
        >>> network = XLSTMUNet(1, 3, patch_size=(16, 16), strides=((1, 1), (2, 2), (2, 2)), features=(4, 8, 8))
        >>> [tuple(logits.shape) for logits in network(torch.zeros(2, 1, 16, 16))]
        [(2, 3, 16, 16), (2, 3, 8, 8)]
        >>> network.eval()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
        >>> network = XLSTMUNet(1, 3, spatial_dims=2, features=(4, 8, 8), pad=True)
        >>> network.eval()(torch.zeros(2, 1, 13, 18)).shape
        torch.Size([2, 3, 13, 18])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int | None = None,
        patch_size: Sequence[int] | None = None,
        strides: PerStage | None = None,
        features: Sequence[int] | None = None,
        kernel_sizes: PerStage | None = None,
        variant: Literal["bot", "enc"] = "enc",
        num_blocks_encoder: int = 2,
        num_blocks_decoder: int = 2,
        sequence_block: SequenceBlock = "vil",
        traversal: Traversal = "forward",
        skip_full_resolution: bool | None = None,
        deep_supervision: bool = True,
        pad: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        shapes = StageShapes.complete(
            strides,
            features=features,
            kernel_sizes=kernel_sizes,
            spatial_dims=spatial_dims,
            patch_size=patch_size,
        )
        if patch_size is not None:
            check_size(patch_size, name="patch_size", total_stride=shapes.total_stride, min_deepest_voxels=2)
        self.title = "xLSTM-UNet"
        self.in_channels = in_channels
        self.image_channels = frozenset({in_channels})
        self.total_stride = shapes.total_stride
        self.pad = pad
        self.deep_supervision = deep_supervision
        self.encoder = XLSTMEncoder(in_channels, shapes=shapes, num_blocks=num_blocks_encoder)
        self.sequence_layers = nn.ModuleList()
        self.bottleneck: nn.Module = nn.Identity()
        if variant == "enc":
            self.sequence_layers = encoder_sequence_layers(
                shapes, patch_size=patch_size, block=sequence_block, traversal=traversal
            )
        elif sequence_block != "none":
            self.bottleneck = sequence_layer(
                sequence_block, dim=shapes.features[-1], tokens="voxel", traversal=traversal, index=0
            )
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.fixed_map_sizes = (
            {} if patch_size is None else _fixed_map_sizes(self.sequence_layers, shapes.map_sizes(patch_size))
        )
        self.decoder = XLSTMDecoder(
            num_classes,
            shapes=shapes,
            num_blocks=num_blocks_decoder,
            skip_full_resolution=shapes.num_axes == 3
            if skip_full_resolution is None
            else skip_full_resolution,
            deep_supervision=deep_supervision,
        )
        if zero_init_residual:
            zero_init_residuals(self)

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
        if torch.compiler.is_compiling() and self.training and x.ndim == 4 and x.device.type == "cpu":
            warn_of_compiled_training()
        return self.cropped(self.decoder(self.features(x), every_stage=every_stage), x)

    def features(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> tuple[Float[Tensor, "batch feature *stage_space"], ...]:
        """Return the maps of the encoder stages, after their sequence layers.

        Args:
            x: Images of shape (batch, channel, *space).

        Returns:
            One map of shape (batch, feature, *stage_space) for each stage, the highest resolution first.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        x = self.checked(x, min_deepest_voxels=2)
        self._check_fixed_sizes(x.shape[2:])
        *skips, deepest = self.encoder(self.to_memory_format(x), self.sequence_layers)
        return (*skips, self.bottleneck(deepest))

    def encoder_modules(self) -> tuple[nn.Module, ...]:
        """Return the encoder and its sequence layers."""
        return self.encoder, self.sequence_layers, self.bottleneck

    def class_layers(self) -> tuple[nn.Conv2d | nn.Conv3d, ...]:
        """Return the last layer of each decoder stage with logits."""
        return class_layers(self.decoder.heads)

    def padded_size(self, size: Sequence[int], *, min_deepest_voxels: int) -> tuple[int, ...]:
        """Return the size to which images are padded: the patch size if channels are tokens."""
        patch_size = self.patch_size if self.fixed_map_sizes else None
        if patch_size is not None and all(
            voxels <= most for voxels, most in zip(size, patch_size, strict=True)
        ):
            return patch_size
        return super().padded_size(size, min_deepest_voxels=min_deepest_voxels)

    def _check_fixed_sizes(self, size: Sequence[int]) -> None:
        if self.fixed_map_sizes and tuple(size) != self.patch_size:
            stages = ", ".join(
                f"stage {stage} (map {map_size})" for stage, map_size in self.fixed_map_sizes.items()
            )
            raise InputError(
                f"image size: expected the patch_size {self.patch_size}, got {tuple(size)}. The channels are the "
                f"tokens of {stages}, which fixes the image size. Cut windows of that size, or build the network for "
                "another patch_size."
            )


class XLSTMEncoder(nn.Module):
    """A stem and stages of residual blocks, with optional sequence layers between.

    Args:
        in_channels: Channels of the images.
        shapes: The stages.
        num_blocks: Residual blocks of each stage in the first half. Stages in the second half have one.
    """

    def __init__(self, in_channels: int, *, shapes: StageShapes, num_blocks: int) -> None:
        super().__init__()
        half = math.ceil(shapes.num_stages / 2)
        counts = [num_blocks if stage < half else 1 for stage in range(shapes.num_stages)]
        self.stem = _residual_stage(
            in_channels, shapes.features[0], kernel_size=shapes.kernel_sizes[0], num_blocks=counts[0]
        )
        inputs = (shapes.features[0], *shapes.features[:-1])
        self.stages = nn.ModuleList(
            _residual_stage(
                inputs[stage],
                shapes.features[stage],
                kernel_size=shapes.kernel_sizes[stage],
                num_blocks=counts[stage],
                stride=shapes.strides[stage],
            )
            for stage in range(shapes.num_stages)
        )

    def forward(
        self, x: Float[Tensor, "batch channel *space"], sequence_layers: nn.ModuleList
    ) -> list[Float[Tensor, "batch feature *stage_space"]]:
        """Return the skips of the stages.

        Args:
            x: Images of shape (batch, channel, *space).
            sequence_layers: One layer after each stage, or an empty list.

        Returns:
            One map of shape (batch, feature, *stage_space) for each stage, the highest resolution first.
        """
        x = self.stem(x)
        skips = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if len(sequence_layers) > 0:
                x = sequence_layers[index](x)
            skips.append(x)
        return skips


class XLSTMDecoder(nn.Module):
    """The decoder of xLSTM-UNet.

    Each stage upsamples, joins the skip, and applies residual blocks. A 1x1 convolution computes the logits.

    Args:
        num_classes: Channels of the logits.
        shapes: Stages of the encoder.
        num_blocks: Residual blocks of each stage in the first half. Stages in the second half have one.
        skip_full_resolution: Join the skip of the first encoder stage in the last stage.
        deep_supervision: Give every stage a head. Otherwise only the last stage has one.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        shapes: StageShapes,
        num_blocks: int,
        skip_full_resolution: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        num_stages = shapes.num_stages - 1
        half = math.ceil(num_stages / 2 + 0.5)
        self.skip_full_resolution = skip_full_resolution
        self.factors = tuple(reversed(shapes.strides[1:]))
        self.projections, self.stages, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        point = (1,) * shapes.num_axes
        for index in range(num_stages):
            level = num_stages - 1 - index
            dim = shapes.features[level]
            joins = level > 0 or skip_full_resolution
            self.projections.append(convolution(shapes.features[level + 1], dim, kernel_size=point))
            self.stages.append(
                _residual_stage(
                    2 * dim if joins else dim,
                    dim,
                    kernel_size=shapes.kernel_sizes[level],
                    num_blocks=num_blocks if index < half else 1,
                )
            )
            if deep_supervision or level == 0:
                self.heads.append(convolution(dim, num_classes, kernel_size=point))

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
        joined = [*skips[1:-1][::-1], skips[0] if self.skip_full_resolution else None]
        parts = zip(self.projections, self.stages, self.factors, joined, strict=True)
        for projection, stage, factor, skip in parts:
            # The projection acts on single voxels. It commutes with nearest upsampling, and is cheaper before it.
            x = stage(upsample_join(convolve(projection, x), skip, factors=factor))
            maps.append(x)
        return stage_logits(self.heads, maps, every_stage=every_stage)


def _residual_stage(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    num_blocks: int,
    stride: Sequence[int] | None = None,
) -> nn.Sequential:
    first = BasicResBlock(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
    others = (BasicBlockD(out_channels, out_channels, kernel_size=kernel_size) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *others)


def _fixed_map_sizes(
    layers: nn.ModuleList, map_sizes: Sequence[tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    return {
        stage: map_sizes[stage]
        for stage, layer in enumerate(layers)
        if isinstance(layer, SequenceLayer) and layer.tokens == "channel"
    }
