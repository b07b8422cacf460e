"""The U-Nets of nnU-Net, plain and with a residual encoder: the baselines of every comparison."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.layers import BasicBlockD, ConvNormAct, convolution, transposed_convolution, zero_init_residuals
from scanseg.networks.input_check import check_image
from scanseg.networks.placement import ConvolutionalNetwork
from scanseg.networks.stage_logits import stage_logits
from scanseg.networks.stage_shapes import StageShapes
from scanseg.ops import upsample_join


class PlainUNet(ConvolutionalNetwork):
    """The plain convolutional U-Net of nnU-Net. Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.

    While it trains with `deep_supervision`, logits of every decoder stage come out, the highest resolution
    first; otherwise those of the highest resolution alone. The attribute `deep_supervision` may be switched
    off later.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        strides: Stride with which each stage begins, per axis; that of the first is 1.
        features: Features of each stage; None: min(32 * 2^stage, 512 in 2D and 320 in 3D).
        kernel_sizes: Kernel of each stage per axis, odd; None: 3 on every axis.
        num_convs_encoder: Convolutions of each encoder stage; None: 2.
        num_convs_decoder: Convolutions of each decoder stage, the deepest first; None: 2.
        deep_supervision: Whether there are logits of every decoder stage.

    Raises:
        InputError: The arguments do not describe a network.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        strides: Sequence[Sequence[int]],
        features: Sequence[int] | None = None,
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        num_convs_encoder: Sequence[int] | None = None,
        num_convs_decoder: Sequence[int] | None = None,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        shapes = StageShapes.complete(strides, features=features, kernel_sizes=kernel_sizes)
        counts = _counts("num_convs_encoder", num_convs_encoder, shapes.num_stages)
        inputs = (in_channels, *shapes.features[:-1])
        self.in_channels = in_channels
        self.total_stride = shapes.total_stride
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
            x: Images whose axes are divisible by the total stride.
            every_stage: Whether to return logits of every decoder stage, the highest resolution first; None:
                while training with `deep_supervision`.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        _check(x, network="Plain U-Net", in_channels=self.in_channels, total_stride=self.total_stride)
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        return self.decoder(_run_stages(self.encoder, self.lay_out(x)), every_stage=every_stage)


class ResidualUNet(ConvolutionalNetwork):
    """The residual-encoder U-Net of nnU-Net. Source: Isensee et al. 2024, arXiv:2404.09556.

    While it trains with `deep_supervision`, logits of every decoder stage come out, the highest resolution
    first; otherwise those of the highest resolution alone. The attribute `deep_supervision` may be switched
    off later. As in nnU-Net, residual blocks begin as their shortcuts: the scales of their last norms are 0.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        strides: Stride with which each stage begins, per axis; that of the first is 1.
        num_blocks_encoder: Residual blocks of each encoder stage.
        features: Features of each stage; None: min(32 * 2^stage, 512 in 2D and 320 in 3D).
        kernel_sizes: Kernel of each stage per axis, odd; None: 3 on every axis.
        num_convs_decoder: Convolutions of each decoder stage, the deepest first; None: 1.
        deep_supervision: Whether there are logits of every decoder stage.

    Raises:
        InputError: The arguments do not describe a network.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        strides: Sequence[Sequence[int]],
        num_blocks_encoder: Sequence[int],
        features: Sequence[int] | None = None,
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        num_convs_decoder: Sequence[int] | None = None,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        shapes = StageShapes.complete(strides, features=features, kernel_sizes=kernel_sizes)
        counts = _counts("num_blocks_encoder", num_blocks_encoder, shapes.num_stages)
        inputs = (shapes.features[0], *shapes.features[:-1])
        self.in_channels = in_channels
        self.total_stride = shapes.total_stride
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
            x: Images whose axes are divisible by the total stride.
            every_stage: Whether to return logits of every decoder stage, the highest resolution first; None:
                while training with `deep_supervision`.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        _check(x, network="Residual U-Net", in_channels=self.in_channels, total_stride=self.total_stride)
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        return self.decoder(_run_stages(self.encoder, self.stem(self.lay_out(x))), every_stage=every_stage)


class UNetDecoder(nn.Module):
    """Transposed convolution, join the skip, convolutions; logits after each stage or the last.

    Args:
        num_classes: Channels of the logits.
        shapes: The stages of the encoder.
        num_convs: Convolutions of each stage, the deepest first; None: 2.
        deep_supervision: Whether every stage has logits, or only the last.

    Raises:
        InputError: `num_convs` does not fit the stages.
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
        """Return the logits of the last stage, or of every stage with the highest resolution first."""
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
            f"{name} {tuple(chosen)} must give a positive number for each of {num_stages} stages."
        )
    return chosen


def _check(x: Tensor, *, network: str, in_channels: int, total_stride: Sequence[int]) -> None:
    check_image(x, network=network, channels=(in_channels,), total_stride=total_stride, min_deepest_voxels=2)
