"""Descriptions of networks.

They form a tagged union with one member for each entry of the table of networks. `scanseg.networks.build_network`
builds a network from its description, the number of input channels, the number of classes and the patch size. These
three belong to the plan and are not repeated here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scanseg.messages import counted
from scanseg.specs.base import Count, Document, LeftOutDefaults, RenamedFields, Size

Rate = Annotated[float, Field(ge=0, lt=1)]
PerAxis = tuple[Size, ...]
_MOST_STAGES = 32

SequenceBlock = Literal["vil", "none", "mamba"]
Traversal = Literal["forward", "backward", "alternate", "bidirectional"]


class StagedSpec(RenamedFields):
    """Base class of U-Nets with features, kernel and stride per stage."""

    features: tuple[Size, ...] = Field(max_length=_MOST_STAGES)
    """Features of each stage, the highest resolution first."""
    kernel_sizes: tuple[PerAxis, ...] = Field(max_length=_MOST_STAGES)
    """Odd kernel size of each stage in voxels, per axis (z, y, x or y, x)."""
    strides: tuple[PerAxis, ...] = Field(max_length=_MOST_STAGES)
    """Stride of the first convolution of each stage, per axis. The first stage has stride 1."""
    deep_supervision: bool = True
    """Return the logits of every decoder stage while training."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        num_stages, num_axes = len(self.features), len(self.strides[0]) if self.strides else 0
        if num_stages < 2 or len(self.kernel_sizes) != num_stages or len(self.strides) != num_stages:
            raise ValueError(
                "features, kernel_sizes and strides: expected the same number of stages, at least 2, got "
                f"{num_stages}, {len(self.kernel_sizes)} and {len(self.strides)}"
            )
        if num_axes not in (2, 3) or any(
            len(axis) != num_axes for axis in (*self.strides, *self.kernel_sizes)
        ):
            raise ValueError("strides and kernel_sizes: expected the same 2 or 3 axes in each")
        if any(size % 2 == 0 for kernel in self.kernel_sizes for size in kernel):
            raise ValueError(f"kernel_sizes: expected odd sizes, got {self.kernel_sizes}")
        if set(self.strides[0]) != {1}:
            raise ValueError(f"strides: expected 1 on every axis in the first stage, got {self.strides[0]}")
        return self

    @property
    def num_axes(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return len(self.strides[0])


class XLSTMUNetSpec(StagedSpec):
    """xLSTM-UNet. Source: Chen et al. 2024, arXiv:2407.01530."""

    kind: Literal["xlstm-unet"] = "xlstm-unet"
    """Kind of the network."""
    variant: Literal["bot", "enc"] = "enc"
    """Position of the sequence layers. `bot`: after the last encoder stage. `enc`: along the encoder."""
    num_blocks_encoder: Count = 2
    """Residual blocks of each stage in the first half of the encoder. Stages in the second half have one."""
    num_blocks_decoder: Count = 2
    """Residual blocks of each stage in the first half of the decoder. Stages in the second half have one."""
    sequence_block: SequenceBlock = "vil"
    """Block of the sequence layers: `vil`, `mamba` (the block of U-Mamba) or `none`.

    With `none`, residual blocks replace the sequence layers in `enc`, and `bot` has no layer there.
    """
    traversal: Traversal = "forward"
    """Order in which sequence layers read their tokens. `forward` is as published."""
    skip_full_resolution: bool | None = None
    """Join the skip of the first encoder stage in the last decoder stage. `None`: as published (3D yes, 2D no)."""
    zero_init_residual: bool = False
    """Initialize residual blocks without a convolution in the shortcut as their shortcut, as nnU-Net does.

    The scale of their last norm is then initialized with 0.
    """


class ResidualUNetSpec(StagedSpec):
    """The residual-encoder U-Net of nnU-Net.

    Source: Isensee et al. 2024, arXiv:2404.09556.
    """

    kind: Literal["residual-unet"] = "residual-unet"
    """Kind of the network."""
    num_blocks_encoder: tuple[Count, ...]
    """Residual blocks of each encoder stage."""
    num_convs_decoder: tuple[Count, ...]
    """Convolutions of each decoder stage, the deepest first."""


class PlainUNetSpec(StagedSpec):
    """The plain U-Net of nnU-Net.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.
    """

    kind: Literal["plain-unet"] = "plain-unet"
    """Kind of the network."""
    num_convs_encoder: tuple[Count, ...]
    """Convolutions of each encoder stage."""
    num_convs_decoder: tuple[Count, ...]
    """Convolutions of each decoder stage, the deepest first."""


class MSVMUNetSpec(LeftOutDefaults):
    """MSVM-UNet, 2D. Source: Chen et al. 2024, arXiv:2408.13735."""

    left_out_defaults = ("deep_supervision",)

    kind: Literal["msvm-unet"] = "msvm-unet"
    """Kind of the network."""
    dims: tuple[Size, Size, Size, Size] = (96, 192, 384, 768)
    """Features of the four encoder stages (strides 4, 8, 16, 32)."""
    depths: tuple[Count, Count, Count, Count] = (2, 2, 8, 2)
    """VSS blocks of each encoder stage. (2, 2, 8, 2) is the paper's tiny network, (2, 2, 20, 2) its small one."""
    decoder_depth: Count = 2
    """VSS blocks of each of the three decoder stages."""
    state_size: Annotated[int, Field(ge=1, le=16)] = 1
    """Size of the scan's state per channel."""
    ffn_kernels: tuple[Size, ...] = Field(default=(1, 3, 5), max_length=_MOST_STAGES)
    """Odd kernel sizes of the decoder's multi-scale feed-forward layers in pixels. Empty: plain feed-forward layers."""
    upsampling: Literal["lkpe", "patch-expand", "transposed-convolution", "bilinear"] = "lkpe"
    """Upsampling method of the decoder."""
    sequence_block: Literal["ss2d", "none"] = "ss2d"
    """`ss2d`: VSS blocks with their scan branch. `none`: without it."""
    drop_path: Rate = 0.2
    """Highest rate of stochastic depth, from 0 to 1."""
    deep_supervision: bool = False
    """Return the logits of every decoder stage while training. Not in the paper."""

    @property
    def num_axes(self) -> int:
        """Number of spatial axes: 2."""
        return 2

    @property
    def strides(self) -> tuple[tuple[int, int], ...]:
        """Strides between the logits of deep supervision, the image first."""
        return ((1, 1), (4, 4), (2, 2), (2, 2), (2, 2))


class DynUNetSpec(StagedSpec):
    """MONAI's U-Net with nnU-Net's stages.

    Sources: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, and MONAI, arXiv:2211.02701.
    """

    kind: Literal["dynunet"] = "dynunet"
    """Kind of the network."""
    residual_blocks: bool = False
    """Use residual blocks instead of two plain convolutions."""
    dropout: Rate = 0.0
    """Dropout rate, from 0 to 1."""

    @model_validator(mode="after")
    def _check_depth(self) -> Self:
        if len(self.features) < 3:
            raise ValueError(
                f"features: expected at least 3 stages for DynUNet, got {counted(len(self.features), 'stage')}: "
                f"{self.features}"
            )
        return self


class SegResNetSpec(Document):
    """SegResNet, from MONAI. Source: Myronenko 2018, arXiv:1810.11654."""

    kind: Literal["segresnet"] = "segresnet"
    """Kind of the network."""
    num_axes: Literal[2, 3]
    """Number of spatial axes."""
    features: Annotated[int, Field(gt=0, le=2**16, multiple_of=8)] = 32
    """Features of the first stage, doubled from stage to stage. Group norms have 8 groups."""
    blocks_encoder: tuple[Count, ...] = Field(default=(1, 2, 2, 4), min_length=2, max_length=_MOST_STAGES)
    """Residual blocks of each encoder stage."""
    blocks_decoder: tuple[Count, ...] = (1, 1, 1)
    """Residual blocks of each decoder stage, the deepest first."""
    dropout: Rate = 0.0
    """Dropout rate, from 0 to 1."""

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        if len(self.blocks_decoder) != len(self.blocks_encoder) - 1:
            raise ValueError(
                f"blocks_decoder: expected one stage less than blocks_encoder {self.blocks_encoder}, got "
                f"{self.blocks_decoder}"
            )
        return self


class UNETRSpec(Document):
    """UNETR, from MONAI. Source: Hatamizadeh et al. 2022, arXiv:2103.10504."""

    kind: Literal["unetr"] = "unetr"
    """Kind of the network."""
    num_axes: Literal[2, 3]
    """Number of spatial axes."""
    features: Size = 16
    """Features of the highest resolution."""
    hidden_size: Size = 768
    """Features of a token."""
    mlp_dim: Size = 3072
    """Hidden features of the transformer's perceptrons."""
    num_heads: Count = 12
    """Attention heads of each transformer block."""
    dropout: Rate = 0.0
    """Dropout rate, from 0 to 1."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size: expected a multiple of num_heads {self.num_heads}, got {self.hidden_size}"
            )
        return self


class SwinUNETRSpec(Document):
    """SwinUNETR, from MONAI. Source: Hatamizadeh et al. 2022, arXiv:2201.01266."""

    kind: Literal["swin-unetr"] = "swin-unetr"
    """Kind of the network."""
    num_axes: Literal[2, 3]
    """Number of spatial axes."""
    features: Annotated[int, Field(gt=0, le=2**16, multiple_of=12)] = 48
    """Features of the first stage, doubled from stage to stage."""
    depths: tuple[Count, Count, Count, Count] = (2, 2, 2, 2)
    """Transformer blocks of each stage."""
    num_heads: tuple[Count, Count, Count, Count] = (3, 6, 12, 24)
    """Attention heads of each stage."""
    window_size: Annotated[int, Field(ge=2, le=2**16)] = 7
    """Tokens along each axis of an attention window."""
    drop_path: Rate = 0.0
    """Highest rate of stochastic depth, from 0 to 1."""
    version2: bool = False
    """Start each stage with a residual convolution (Swin-UNETR-V2)."""
    checkpointing: bool = False
    """Recompute the encoder in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        for stage, heads in enumerate(self.num_heads):
            if (self.features * 2**stage) % heads:
                raise ValueError(
                    f"num_heads: expected a divisor of the {self.features * 2**stage} features of stage {stage}, got "
                    f"{heads}"
                )
        return self


BaselineSpec = DynUNetSpec | SegResNetSpec | UNETRSpec | SwinUNETRSpec
"""Networks of MONAI (`pip install "scanseg[baselines]"`)."""

NetworkSpec = Annotated[
    XLSTMUNetSpec | MSVMUNetSpec | ResidualUNetSpec | PlainUNetSpec | BaselineSpec,
    Field(discriminator="kind"),
]
