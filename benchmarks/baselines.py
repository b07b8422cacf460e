"""Networks of other projects: nnU-Net's plain U-Net, MONAI's SegResNet and Swin UNETR.

They run as their packages build them, in PyTorch's default memory format, as for their users.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torch import nn

from benchmarks.entries import UnavailableError
from scanseg.planning.topology import Topology

MAX_FEATURES = {2: 512, 3: 320}


def plain_conv_unet(
    channels: int, num_classes: int, patch_size: Sequence[int], topology: Topology
) -> nn.Module:
    """Build nnU-Net's PlainConvUNet as its planner configures it.

    It has two convolutions per stage, and deep supervision.
    """
    try:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet
    except ImportError as error:
        raise _not_installed("dynamic-network-architectures", error) from error
    num_axes, num_stages = len(patch_size), len(topology.strides)
    return PlainConvUNet(
        input_channels=channels,
        n_stages=num_stages,
        features_per_stage=[min(32 * 2**stage, MAX_FEATURES[num_axes]) for stage in range(num_stages)],
        conv_op=nn.Conv2d if num_axes == 2 else nn.Conv3d,
        kernel_sizes=topology.kernel_sizes,
        strides=topology.strides,
        n_conv_per_stage=2,
        num_classes=num_classes,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if num_axes == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def segresnet(channels: int, num_classes: int, patch_size: Sequence[int], topology: Topology) -> nn.Module:
    """Build MONAI's SegResNet with the 32 features of its bundles."""
    try:
        from monai.networks.nets import SegResNet
    except ImportError as error:
        raise _not_installed("monai", error) from error
    return SegResNet(
        spatial_dims=len(patch_size),
        init_filters=32,
        in_channels=channels,
        out_channels=num_classes,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def swin_unetr(channels: int, num_classes: int, patch_size: Sequence[int], topology: Topology) -> nn.Module:
    """Build MONAI's Swin UNETR with the 48 features of its bundles."""
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError as error:
        raise _not_installed("monai", error) from error
    if any(size % 32 for size in patch_size):
        raise UnavailableError(f"Swin UNETR takes sizes divisible by 32, not {tuple(patch_size)}")
    return SwinUNETR(
        in_channels=channels, out_channels=num_classes, feature_size=48, spatial_dims=len(patch_size)
    )


def _not_installed(package: str, error: ImportError) -> UnavailableError:
    return UnavailableError(f"{package} cannot be imported ({error}). Run pip install {package}.")


BASELINES: Mapping[str, Callable[[int, int, Sequence[int], Topology], nn.Module]] = MappingProxyType(
    {
        "nnunet-plain-conv-unet": plain_conv_unet,
        "monai-segresnet": segresnet,
        "monai-swin-unetr": swin_unetr,
    }
)
