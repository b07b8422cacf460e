"""Descriptions of networks: a tagged union, one member for each entry of the network table.

A network is built from its description, the channels that come in, the classes that go out and the patch size
(`scanseg.networks.build_network`); those three belong to the plan and are not repeated here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scanseg.messages import counted
from scanseg.specs.base import Document

PositiveInt = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
PerAxis = tuple[PositiveInt, ...]

SequenceBlock = Literal["vil", "none", "mamba"]
Traversal = Literal["forward", "backward", "alternate", "bidirectional"]


class StagedSpec(Document):
    """What all U-Nets whose shape comes from the plan share: features, kernel and stride of each stage."""

    features: tuple[PositiveInt, ...]
    """Features of each stage, the highest resolution first."""
    kernel_sizes: tuple[PerAxis, ...]
    """Kernel size of each stage, per axis (z, y, x or y, x); odd."""
    strides: tuple[PerAxis, ...]
    """Stride with which each stage begins, per axis; that of the first is 1."""
    deep_supervision: bool = True
    """Whether the network returns logits of every decoder stage while it trains."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        num_stages, num_axes = len(self.features), len(self.strides[0]) if self.strides else 0
        if num_stages < 2 or len(self.kernel_sizes) != num_stages or len(self.strides) != num_stages:
            raise ValueError(
                f"features, kernel_sizes and strides describe {num_stages}, {len(self.kernel_sizes)} and "
                f"{len(self.strides)} stages; they must describe the same number, at least 2"
            )
        if num_axes not in (2, 3) or any(
            len(axis) != num_axes for axis in (*self.strides, *self.kernel_sizes)
        ):
            raise ValueError("every stride and kernel size must have the same 2 or 3 axes")
        if any(size % 2 == 0 for kernel in self.kernel_sizes for size in kernel):
            raise ValueError(f"kernel_sizes {self.kernel_sizes} must be odd")
        if set(self.strides[0]) != {1}:
            raise ValueError(
                f"the stride of the first stage is {self.strides[0]}; it must be 1 on every axis"
            )
        return self

    @property
    def num_axes(self) -> int:
        """2 or 3 spatial axes."""
        return len(self.strides[0])


class XLSTMUNetSpec(StagedSpec):
    """xLSTM-UNet. Source: Chen et al. 2024, arXiv:2407.01530."""

    kind: Literal["xlstm-unet"] = "xlstm-unet"
    variant: Literal["bot", "enc"] = "enc"
    """Where the sequence layers stand: after the last encoder stage, or along the encoder."""
    num_blocks_encoder: PositiveInt = 2
    """Residual blocks of a stage in the first half of the encoder; one in the second half."""
    num_blocks_decoder: PositiveInt = 2
    """Residual blocks of a stage in the first half of the decoder; one in the second half."""
    sequence_block: SequenceBlock = "vil"
    """`none` puts a residual block or nothing in its place, `mamba` the block of U-Mamba."""
    traversal: Traversal = "forward"
    """Direction in which a sequence layer reads its tokens; `forward` as published."""
    skip_full_resolution: bool | None = None
    """Whether the last decoder stage sees the skip of the first; None: as published (3D yes, 2D no)."""
    zero_init_residual: bool = False
    """Whether the residual blocks behind the first of a stage begin as the way around them, as those of nnU-Net do."""


class ResidualUNetSpec(StagedSpec):
    """The residual-encoder U-Net of nnU-Net. Source: Isensee et al. 2024, arXiv:2404.09556."""

    kind: Literal["residual-unet"] = "residual-unet"
    num_blocks_encoder: tuple[PositiveInt, ...]
    """Residual blocks of each encoder stage."""
    num_convs_decoder: tuple[PositiveInt, ...]
    """Convolutions of each decoder stage, the deepest first."""


class PlainUNetSpec(StagedSpec):
    """The plain U-Net of nnU-Net. Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z."""

    kind: Literal["plain-unet"] = "plain-unet"
    num_convs_encoder: tuple[PositiveInt, ...]
    """Convolutions of each encoder stage."""
    num_convs_decoder: tuple[PositiveInt, ...]
    """Convolutions of each decoder stage, the deepest first."""


class MSVMUNetSpec(Document):
    """MSVM-UNet, 2D. Source: Chen et al. 2024, arXiv:2408.13735."""

    kind: Literal["msvm-unet"] = "msvm-unet"
    dims: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (96, 192, 384, 768)
    """Features of the four encoder stages (strides 4, 8, 16, 32)."""
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 8, 2)
    """VSS blocks of each encoder stage; (2, 2, 8, 2) is tiny, (2, 2, 20, 2) small."""
    decoder_depth: PositiveInt = 2
    """VSS blocks of each of the three decoder stages."""
    state_size: Annotated[int, Field(ge=1, le=16)] = 1
    """Size N of the scan's state per channel."""
    ffn_kernels: tuple[PositiveInt, ...] = (1, 3, 5)
    """Kernels of the decoder's multi-scale feed-forward part; empty: a plain one."""
    upsampling: Literal["lkpe", "patch-expand", "transposed-convolution", "bilinear"] = "lkpe"
    """How the decoder raises resolution."""
    sequence_block: Literal["ss2d", "none"] = "ss2d"
    """`none`: VSS blocks without their scan branch."""
    drop_path: Rate = 0.2
    """Highest rate of stochastic depth."""

    @property
    def num_axes(self) -> int:
        """2 spatial axes."""
        return 2


class DynUNetSpec(StagedSpec):
    """MONAI's U-Net with nnU-Net's stages. Source: Isensee et al. 2021; MONAI, arXiv:2211.02701."""

    kind: Literal["dynunet"] = "dynunet"
    residual_blocks: bool = False
    """Residual blocks instead of two plain convolutions."""
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _check_depth(self) -> Self:
        if len(self.features) < 3:
            raise ValueError(
                f"features {self.features} describe {counted(len(self.features), 'stage')}; DynUNet has at least 3"
            )
        return self


class SegResNetSpec(Document):
    """SegResNet, from MONAI. Source: Myronenko 2018, arXiv:1810.11654."""

    kind: Literal["segresnet"] = "segresnet"
    num_axes: Literal[2, 3]
    features: Annotated[int, Field(gt=0, multiple_of=8)] = 32
    """Features of the first stage, doubled from stage to stage; norms are over 8 groups of them."""
    blocks_encoder: tuple[PositiveInt, ...] = Field(default=(1, 2, 2, 4), min_length=2)
    """Residual blocks of each encoder stage."""
    blocks_decoder: tuple[PositiveInt, ...] = (1, 1, 1)
    """Residual blocks of each decoder stage, the deepest first."""
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        if len(self.blocks_decoder) != len(self.blocks_encoder) - 1:
            raise ValueError(
                f"blocks_decoder {self.blocks_decoder} must have one stage less than blocks_encoder "
                f"{self.blocks_encoder}"
            )
        return self


class UNETRSpec(Document):
    """UNETR, from MONAI. Source: Hatamizadeh et al. 2022, arXiv:2103.10504."""

    kind: Literal["unetr"] = "unetr"
    num_axes: Literal[2, 3]
    features: PositiveInt = 16
    """Features of the highest resolution."""
    hidden_size: PositiveInt = 768
    """Features of a token."""
    mlp_dim: PositiveInt = 3072
    num_heads: PositiveInt = 12
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        return self


class SwinUNETRSpec(Document):
    """SwinUNETR, from MONAI. Source: Hatamizadeh et al. 2022, arXiv:2201.01266."""

    kind: Literal["swin-unetr"] = "swin-unetr"
    num_axes: Literal[2, 3]
    features: Annotated[int, Field(gt=0, multiple_of=12)] = 48
    """Features of the first stage, doubled from stage to stage."""
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
    """Transformer blocks of each stage."""
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)
    window_size: Annotated[int, Field(ge=2)] = 7
    """Tokens along each axis of an attention window."""
    drop_path: Rate = 0.0
    version2: bool = False
    """A residual convolution at the beginning of each stage (Swin-UNETR-V2)."""
    checkpointing: bool = False
    """Compute the encoder again in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        for stage, heads in enumerate(self.num_heads):
            if (self.features * 2**stage) % heads:
                raise ValueError(
                    f"stage {stage} has {self.features * 2**stage} features, not divisible by its num_heads {heads}"
                )
        return self


BaselineSpec = DynUNetSpec | SegResNetSpec | UNETRSpec | SwinUNETRSpec
"""Networks that MONAI brings (`pip install "scanseg[baselines]"`)."""

NetworkSpec = Annotated[
    XLSTMUNetSpec | MSVMUNetSpec | ResidualUNetSpec | PlainUNetSpec | BaselineSpec,
    Field(discriminator="kind"),
]
