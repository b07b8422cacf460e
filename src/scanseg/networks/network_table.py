"""The table of networks: titles, sources and builders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from scanseg.errors import InputError
from scanseg.networks.input_check import check_size
from scanseg.networks.monai_networks import build_dynunet, build_segresnet, build_swin_unetr, build_unetr
from scanseg.networks.msvm_unet import MSVMUNet
from scanseg.networks.nnunet import PlainUNet, ResidualUNet
from scanseg.networks.xlstm_unet import XLSTMUNet
from scanseg.specs import (
    DynUNetSpec,
    MSVMUNetSpec,
    NetworkSpec,
    PlainUNetSpec,
    ResidualUNetSpec,
    SegResNetSpec,
    SwinUNETRSpec,
    UNETRSpec,
    XLSTMUNetSpec,
)


@dataclass(frozen=True)
class NetworkEntry:
    """One row of the table of networks.

    Attributes:
        title: Name as its authors write it.
        summary: One-line summary.
        source: Publication.
        num_axes: Valid numbers of spatial axes.
        deep_supervision: The network can return logits of every decoder stage while training.
        build: Function that builds the network from its description, the input channels, the number of classes and the
            patch size.
    """

    title: str
    summary: str
    source: str
    num_axes: tuple[int, ...]
    deep_supervision: bool
    build: Callable[[NetworkSpec, int, int, Sequence[int]], nn.Module]


def build_network(
    spec: NetworkSpec, *, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    """Build a network with new random weights.

    The weights are drawn from PyTorch's default generator.

    Args:
        spec: Description of the network.
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch.

    Raises:
        InputError: A count is not positive, or the patch size is not valid for the network.
        UsageError: The network needs MONAI, which is not installed.

    Example:
        >>> import torch
        >>> from scanseg.networks import build_network
        >>> from scanseg.specs import XLSTMUNetSpec
        >>> spec = XLSTMUNetSpec(features=(4, 8), kernel_sizes=((3, 3), (3, 3)), strides=((1, 1), (2, 2)))
        >>> network = build_network(spec, in_channels=1, num_classes=3, patch_size=(16, 16)).eval()
        >>> network(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """
    if in_channels < 1 or num_classes < 1:
        raise InputError(
            f"{spec.kind}: expected in_channels and num_classes of at least 1, got in_channels {in_channels} and "
            f"num_classes {num_classes}."
        )
    return NETWORKS[spec.kind].build(spec, in_channels, num_classes, patch_size)


def _build_msvm_unet(
    spec: NetworkSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    assert isinstance(spec, MSVMUNetSpec)
    network = MSVMUNet(
        in_channels,
        num_classes,
        dims=spec.dims,
        depths=spec.depths,
        decoder_depth=spec.decoder_depth,
        state_size=spec.state_size,
        ffn_kernels=spec.ffn_kernels,
        upsampling=spec.upsampling,
        sequence_block=spec.sequence_block,
        drop_path=spec.drop_path,
        deep_supervision=spec.deep_supervision,
    )
    check_size(patch_size, name="patch_size", total_stride=network.total_stride)
    return network


def _build_xlstm_unet(
    spec: NetworkSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    assert isinstance(spec, XLSTMUNetSpec)
    return XLSTMUNet(
        in_channels,
        num_classes,
        patch_size=patch_size,
        strides=spec.strides,
        features=spec.features,
        kernel_sizes=spec.kernel_sizes,
        variant=spec.variant,
        num_blocks_encoder=spec.num_blocks_encoder,
        num_blocks_decoder=spec.num_blocks_decoder,
        sequence_block=spec.sequence_block,
        traversal=spec.traversal,
        skip_full_resolution=spec.skip_full_resolution,
        deep_supervision=spec.deep_supervision,
        zero_init_residual=spec.zero_init_residual,
    )


def _build_residual_unet(
    spec: NetworkSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    assert isinstance(spec, ResidualUNetSpec)
    network = ResidualUNet(
        in_channels,
        num_classes,
        strides=spec.strides,
        num_blocks_encoder=spec.num_blocks_encoder,
        features=spec.features,
        kernel_sizes=spec.kernel_sizes,
        num_convs_decoder=spec.num_convs_decoder,
        deep_supervision=spec.deep_supervision,
    )
    check_size(patch_size, name="patch_size", total_stride=network.total_stride, min_deepest_voxels=2)
    return network


def _build_plain_unet(
    spec: NetworkSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    assert isinstance(spec, PlainUNetSpec)
    network = PlainUNet(
        in_channels,
        num_classes,
        strides=spec.strides,
        features=spec.features,
        kernel_sizes=spec.kernel_sizes,
        num_convs_encoder=spec.num_convs_encoder,
        num_convs_decoder=spec.num_convs_decoder,
        deep_supervision=spec.deep_supervision,
    )
    check_size(patch_size, name="patch_size", total_stride=network.total_stride, min_deepest_voxels=2)
    return network


def _build_baseline(
    spec: NetworkSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> nn.Module:
    """Build a network of MONAI."""
    match spec:
        case DynUNetSpec():
            return build_dynunet(spec, in_channels, num_classes, patch_size)
        case SegResNetSpec():
            return build_segresnet(spec, in_channels, num_classes, patch_size)
        case UNETRSpec():
            return build_unetr(spec, in_channels, num_classes, patch_size)
        case _:
            assert isinstance(spec, SwinUNETRSpec)
            return build_swin_unetr(spec, in_channels, num_classes, patch_size)


NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType(
    {
        "msvm-unet": NetworkEntry(
            title="MSVM-UNet",
            summary="U-Net of VSS blocks: selective scans in four directions, multi-scale decoder",
            source="Chen et al. 2024, arXiv:2408.13735",
            num_axes=(2,),
            deep_supervision=True,
            build=_build_msvm_unet,
        ),
        "xlstm-unet": NetworkEntry(
            title="xLSTM-UNet",
            summary="residual U-Net with mLSTM layers after the encoder (bot) or along it (enc)",
            source="Chen et al. 2024, arXiv:2407.01530",
            num_axes=(2, 3),
            deep_supervision=True,
            build=_build_xlstm_unet,
        ),
        "residual-unet": NetworkEntry(
            title="nnU-Net ResEnc",
            summary="U-Net with a residual encoder, a baseline",
            source="Isensee et al. 2024, arXiv:2404.09556",
            num_axes=(2, 3),
            deep_supervision=True,
            build=_build_residual_unet,
        ),
        "plain-unet": NetworkEntry(
            title="nnU-Net",
            summary="plain convolutional U-Net, a baseline",
            source="Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
            num_axes=(2, 3),
            deep_supervision=True,
            build=_build_plain_unet,
        ),
        "dynunet": NetworkEntry(
            title="DynUNet",
            summary="MONAI's U-Net with nnU-Net's stages, a baseline (extra `baselines`)",
            source="Isensee et al. 2021; MONAI, arXiv:2211.02701",
            num_axes=(2, 3),
            deep_supervision=True,
            build=_build_baseline,
        ),
        "segresnet": NetworkEntry(
            title="SegResNet",
            summary="residual convolutional encoder and decoder, a baseline (extra `baselines`)",
            source="Myronenko 2018, arXiv:1810.11654",
            num_axes=(2, 3),
            deep_supervision=False,
            build=_build_baseline,
        ),
        "unetr": NetworkEntry(
            title="UNETR",
            summary="transformer encoder, convolutional decoder, a baseline (extra `baselines`)",
            source="Hatamizadeh et al. 2022, arXiv:2103.10504",
            num_axes=(2, 3),
            deep_supervision=False,
            build=_build_baseline,
        ),
        "swin-unetr": NetworkEntry(
            title="SwinUNETR",
            summary="shifted-window transformer encoder, convolutional decoder, a baseline (extra `baselines`)",
            source="Hatamizadeh et al. 2022, arXiv:2201.01266",
            num_axes=(2, 3),
            deep_supervision=False,
            build=_build_baseline,
        ),
    }
)
"""The networks, by the kind of their description, such as `xlstm-unet`."""
