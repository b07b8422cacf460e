"""MSVM-UNet: a 2D U-Net of VSS blocks.

Source: Chen et al. 2024, arXiv:2408.13735.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, repeat
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.layers import (
    ChannelLinear,
    ChannelNorm,
    PlainConvolution,
    Scales,
    SharedDraws,
    Upsampling,
    UpsamplingMethod,
    VSSBlock,
    VSSStage,
    parameters_converted,
)
from scanseg.networks.encoder_network import EncoderNetwork
from scanseg.networks.stage_logits import class_layers

STEM_CHANNELS = 3
"""Channels to which an image of one channel is repeated."""
STEM_STRIDE = 4
"""Stride of the stem, and factor of the last upsampling."""


class MSVMUNet(EncoderNetwork):
    """MSVM-UNet, with the ablations of its paper as arguments.

    The logits have the size of the images. While training with `deep_supervision`, the network returns a tuple: these
    logits, then the logits of the decoder stages with strides 4, 8 and 16. Both axes must be divisible by 32, unless
    the network pads. An image of one channel is repeated to three, so that pretrained encoders can process it. Other
    channel counts stay unchanged.

    Args:
        in_channels: Channels of the images. A network for 1 or 3 channels accepts both.
        num_classes: Channels of the logits.
        dims: Features of the four encoder stages.
        depths: VSS blocks of the four encoder stages, such as `MSVMUNet.TINY` or `MSVMUNet.SMALL` of the paper.
        decoder_depth: VSS blocks of each of the three decoder stages.
        state_size: Size of the scan's state per channel.
        ffn_kernels: Odd kernel sizes of the decoder's multi-scale feed-forward layers. Empty: plain feed-forward
            layers.
        upsampling: Upsampling method of the decoder. See `scanseg.layers.Upsampling`.
        sequence_block: `ss2d`, or `none` for VSS blocks without their scan branch.
        drop_path: Highest rate of stochastic depth. It rises from 0 along the encoder and falls to 0 along the
            decoder.
        deep_supervision: Return the logits of every decoder stage while training. Not in the paper.
        pad: Pad images of any size to a multiple of the total stride, and crop the logits to the images.

    Raises:
        InputError: `dims`, `depths` or `ffn_kernels` are invalid.

    Example:
        >>> import torch
        >>> from scanseg.networks import MSVMUNet
        >>> network = MSVMUNet(1, 4, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), decoder_depth=1).eval()
        >>> network(torch.zeros(2, 1, 64, 32)).shape
        torch.Size([2, 4, 64, 32])
    """

    TINY: ClassVar[tuple[int, ...]] = (2, 2, 8, 2)
    """Depths of the tiny network: 36 million parameters."""
    SMALL: ClassVar[tuple[int, ...]] = (2, 2, 20, 2)
    """Depths of the small network: 55 million parameters."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = TINY,
        decoder_depth: int = 2,
        state_size: int = 1,
        ffn_kernels: Sequence[int] = (1, 3, 5),
        upsampling: UpsamplingMethod = "lkpe",
        sequence_block: Literal["ss2d", "none"] = "ss2d",
        drop_path: float = 0.2,
        deep_supervision: bool = False,
        pad: bool = False,
    ) -> None:
        super().__init__()
        _check_shape(dims, depths, ffn_kernels)
        self.title = "MSVM-UNet"
        self.pad = pad
        self.deep_supervision = deep_supervision
        self.image_channels = frozenset(
            {1, STEM_CHANNELS} if in_channels in (1, STEM_CHANNELS) else {in_channels}
        )
        stem_channels = max(self.image_channels)
        self.batch_normed = upsampling == "lkpe"
        self.total_stride = (STEM_STRIDE * 2 ** (len(dims) - 1),) * 2
        scan = sequence_block == "ss2d"
        self.encoder = MSVMEncoder(
            stem_channels, dims=dims, depths=depths, state_size=state_size, scan=scan, drop_path=drop_path
        )
        self.decoder = MSVMDecoder(
            num_classes,
            dims=dims,
            depth=decoder_depth,
            state_size=state_size,
            ffn_kernels=ffn_kernels,
            upsampling=upsampling,
            scan=scan,
            drop_path=drop_path,
            deep_supervision=deep_supervision,
        )

    def forward(
        self, x: Float[Tensor, "batch channel y x"], *, every_stage: bool | None = None
    ) -> Float[Tensor, "batch class y x"] | tuple[Float[Tensor, "batch class stage_y stage_x"], ...]:
        """Return the logits.

        Args:
            x: Images of shape (batch, channel, y, x). y and x are divisible by 32, unless the network pads.
            every_stage: Return the logits of every decoder stage too, the highest resolution first. `None`: only while
                training with `deep_supervision`.

        Returns:
            Logits of shape (batch, class, y, x), or a tuple of them with one entry per decoder stage.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        images = self._prepared(x)
        with parameters_converted(self, images):
            logits = self.decoder(self.encoder(images), every_stage=every_stage)
        return self.cropped(logits, x)

    def features(
        self, x: Float[Tensor, "batch channel y x"]
    ) -> tuple[Float[Tensor, "batch dim stage_y stage_x"], ...]:
        """Return the maps of the encoder stages.

        Args:
            x: Images of shape (batch, channel, y, x).

        Returns:
            Four maps of shape (batch, dim, stage_y, stage_x), with strides 4, 8, 16 and 32.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        return tuple(self.encoder(self._prepared(x)))

    def _prepared(self, x: Tensor) -> Tensor:
        """Check images and return them as the encoder reads them."""
        x = self.checked(
            x, min_deepest_voxels=2 if self.training and self.batch_normed and len(x) == 1 else 1
        )
        if x.shape[1] == 1 < max(self.image_channels):
            x = x.expand(-1, STEM_CHANNELS, -1, -1)
        if x.is_cuda:  # all following layers work channels-last on CUDA
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def encoder_modules(self) -> tuple[nn.Module, ...]:
        """Return the encoder."""
        return (self.encoder,)

    def class_layers(self) -> tuple[nn.Conv2d | nn.Conv3d, ...]:
        """Return the last layers of all stages with logits."""
        return (self.decoder.classify, *class_layers(self.decoder.stage_heads))


class MSVMEncoder(nn.Module):
    """The encoder of VMamba V2 ("v05_noz").

    It is a stem of stride 4, followed by stages of VSS blocks. Source: Liu et al. 2024, arXiv:2401.10166.

    Args:
        in_channels: Channels of the images.
        dims: Features of the stages.
        depths: Blocks of the stages.
        state_size: Size of the scan's state per channel.
        scan: Use the scan branch of the blocks.
        drop_path: Rate of stochastic depth of the last block. It rises linearly from 0.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dims: Sequence[int],
        depths: Sequence[int],
        state_size: int,
        scan: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_downsampling(in_channels, dims[0] // 2),
            nn.GELU(),
            *_downsampling(dims[0] // 2, dims[0], starts_stream=True),
        )
        of_blocks = _linear_rates(0.0, drop_path, sum(depths))
        self.draws = SharedDraws([rate for rate in of_blocks for _ in range(2)])
        rates = iter(of_blocks)
        self.stages = nn.ModuleList(
            VSSStage(
                *(
                    VSSBlock(dim, state_size=state_size, drop_path=next(rates), scan=scan)
                    for _ in range(depth)
                )
            )
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.downsamples = nn.ModuleList(
            nn.Sequential(*_downsampling(dim, deeper, starts_stream=True)) for dim, deeper in pairwise(dims)
        )

    def forward(
        self, x: Float[Tensor, "batch channel y x"]
    ) -> list[Float[Tensor, "batch dim stage_y stage_x"]]:
        """Return the features of the stages (strides 4, 8, 16, 32).

        Args:
            x: Images of shape (batch, channel, y, x).

        Returns:
            One map of shape (batch, dim, stage_y, stage_x) for each stage.
        """
        scales = _drawn(self.draws, self.stages, x)
        x = self.stem(x)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(self.downsamples[index - 1](x) if index > 0 else x, next(scales))
            features.append(x)
        return features


class MSVMDecoder(nn.Module):
    """The decoder of MSVM-UNet.

    Each stage upsamples by 2, joins the skip, and applies VSS blocks with multi-scale feed-forward layers. The head
    upsamples by 4.

    Args:
        num_classes: Channels of the logits.
        dims: Features of the encoder stages.
        depth: Blocks of each stage.
        state_size: Size of the scan's state per channel.
        ffn_kernels: Kernel sizes of the feed-forward layers.
        upsampling: Upsampling method.
        scan: Use the scan branch of the blocks.
        drop_path: Rate of stochastic depth of the deepest block. It falls linearly to 0.
        deep_supervision: Give every stage a head.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dims: Sequence[int],
        depth: int,
        state_size: int,
        ffn_kernels: Sequence[int],
        upsampling: UpsamplingMethod,
        scan: bool,
        drop_path: float,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        shallower = list(zip(reversed(dims[1:]), reversed(dims[:-1]), strict=True))
        of_blocks = _linear_rates(drop_path, 0.0, depth * len(shallower))
        self.draws = SharedDraws([rate for rate in of_blocks for _ in range(2)])
        rates = iter(of_blocks)
        self.upsamplings = nn.ModuleList(
            Upsampling(deep, dim, factor=2, method=upsampling) for deep, dim in shallower
        )
        self.joins = nn.ModuleList(ChannelLinear(2 * dim, dim) for _, dim in shallower)
        self.stages = nn.ModuleList(
            VSSStage(
                *(
                    VSSBlock(
                        dim, state_size=state_size, ffn_kernels=ffn_kernels, drop_path=next(rates), scan=scan
                    )
                    for _ in range(depth)
                )
            )
            for _, dim in shallower
        )
        self.head = Upsampling(dims[0], dims[0], factor=STEM_STRIDE, method=upsampling)
        self.classify = PlainConvolution(dims[0], num_classes, 1)
        self.stage_heads = nn.ModuleList(
            PlainConvolution(dim, num_classes, 1) for _, dim in shallower if deep_supervision
        )

    def forward(
        self, features: Sequence[Float[Tensor, "batch dim stage_y stage_x"]], *, every_stage: bool = False
    ) -> Float[Tensor, "batch class y x"] | tuple[Float[Tensor, "batch class stage_y stage_x"], ...]:
        """Return the logits.

        Args:
            features: Maps of the encoder stages of shape (batch, dim, stage_y, stage_x), the highest resolution first.
            every_stage: Return the logits of all heads, the highest resolution first.

        Returns:
            Logits of shape (batch, class, y, x), or a tuple of them.
        """
        x, skips, maps = features[-1], features[:-1][::-1], []
        scales = _drawn(self.draws, self.stages, x)
        for upsample, join, stage, skip in zip(self.upsamplings, self.joins, self.stages, skips, strict=True):
            raised = upsample(x)
            # Under autocast the encoder's features are float32, but the upsampled ones are not.
            x = stage(join(torch.cat([raised, skip.to(raised.dtype)], dim=1)), next(scales))
            maps.append(x)
        logits: Tensor = self.classify(self.head(x))
        if not every_stage:
            return logits
        stages = [head(each) for head, each in zip(self.stage_heads, maps, strict=False)]
        return (logits, *reversed(stages))


def _downsampling(
    in_channels: int, out_channels: int, *, starts_stream: bool = False
) -> tuple[nn.Module, nn.Module]:
    norm = ChannelNorm(out_channels, starts_stream=starts_stream)
    return PlainConvolution(in_channels, out_channels, 3, stride=2, padding=1), norm


def _drawn(draws: SharedDraws, stages: nn.ModuleList, x: Tensor) -> Iterator[Scales | None]:
    """Return the random factors of each stage's branches."""
    blocks = [_blocks_of(stage) for stage in stages]
    depths = [block.drop_path for stage in blocks for block in stage for _ in range(2)]
    if len(depths) != len(draws.rates):  # stages were replaced
        return repeat(None, len(stages))
    drawn = iter(draws(depths, x))
    return (list(islice(drawn, 2 * len(stage))) for stage in blocks)


def _blocks_of(stage: nn.Module) -> list[VSSBlock]:
    """Return the blocks of a stage, which a wrapper may hold, such as that of activation checkpointing."""
    blocks = [block for block in stage.children() if isinstance(block, VSSBlock)]
    return blocks or [module for module in stage.modules() if isinstance(module, VSSBlock)]


def _linear_rates(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * index / max(count - 1, 1) for index in range(count)]


def _check_shape(dims: Sequence[int], depths: Sequence[int], ffn_kernels: Sequence[int]) -> None:
    if len(dims) != 4 or len(depths) != 4 or min(*dims, *depths) < 1:
        raise InputError(
            f"dims and depths: expected a positive number for each of four stages, such as MSVMUNet.TINY "
            f"{MSVMUNet.TINY}, got {tuple(dims)} and {tuple(depths)}."
        )
    if any(size % 2 == 0 or size < 1 for size in ffn_kernels):
        raise InputError(f"ffn_kernels: expected odd sizes such as (1, 3, 5), got {tuple(ffn_kernels)}.")
