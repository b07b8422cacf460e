"""Networks of MONAI, with the checks and outputs of our networks."""

from collections.abc import Callable, Sequence
from types import MethodType, ModuleType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scanseg.errors import InputError, UsageError
from scanseg.networks.input_check import check_image, check_size
from scanseg.specs import DynUNetSpec, SegResNetSpec, SwinUNETRSpec, UNETRSpec

if TYPE_CHECKING:
    from monai.networks.nets.swin_unetr import SwinTransformerBlock

_UNETR_STRIDE = 16
_SWIN_STRIDE = 32


class _CheckedNetwork(nn.Module):
    """A network of MONAI with a check of its images.

    Args:
        network: The network.
        title: Its name, for messages.
        in_channels: Channels of the images.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Least number of voxels of the deepest map.
        fixed_size: The only valid size of the images. `None`: any multiple of the total stride.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        title: str,
        in_channels: int,
        total_stride: Sequence[int],
        min_deepest_voxels: int = 1,
        fixed_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.title = title
        self.in_channels = in_channels
        self.total_stride = tuple(total_stride)
        self.min_deepest_voxels = min_deepest_voxels
        self.fixed_size = None if fixed_size is None else tuple(fixed_size)

    def _check(self, x: Tensor) -> None:
        check_image(
            x,
            network=self.title,
            channels=(self.in_channels,),
            total_stride=self.total_stride,
            min_deepest_voxels=self.min_deepest_voxels,
        )
        if self.fixed_size is not None and tuple(x.shape[2:]) != self.fixed_size:
            raise InputError(
                f"image size: expected the patch_size {self.fixed_size}, got {tuple(x.shape[2:])}. {self.title} "
                "learns the positions of its tokens, which fixes the image size. Cut windows of that size, or build "
                "the network for another patch_size."
            )


class MonaiNetwork(_CheckedNetwork):
    """A network of MONAI with one output."""

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch class *space"]:
        """Return the logits.

        Args:
            x: Images of shape (batch, channel, *space). The spatial axes are divisible by the total stride.

        Returns:
            Logits of shape (batch, class, *space).

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        self._check(x)
        return self.network(x)


class DynUNet(_CheckedNetwork):
    """MONAI's DynUNet with logits of each decoder stage at its own resolution.

    While training with `deep_supervision`, the network returns the logits of every decoder stage, the highest
    resolution first. MONAI's own forward pass enlarges them to the full resolution, and keeps them in a list that
    cannot be copied.

    Args:
        network: MONAI's network.
        in_channels: Channels of the images.
        total_stride: Product of the strides of all stages, per axis.
        deep_supervision: Return the logits of every decoder stage while training.
    """

    def __init__(
        self, network: nn.Module, *, in_channels: int, total_stride: Sequence[int], deep_supervision: bool
    ) -> None:
        super().__init__(
            network,
            title="DynUNet",
            in_channels=in_channels,
            total_stride=total_stride,
            min_deepest_voxels=2,
        )
        # MONAI's unused forward pass refers to the same layers. Without this, weights would be stored twice.
        network.skip_layers = nn.Identity()
        network.heads = []  # type: ignore[assignment]
        self.deep_supervision = deep_supervision

    def forward(
        self, x: Float[Tensor, "batch channel *space"], *, every_stage: bool | None = None
    ) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
        """Return the logits.

        Args:
            x: Images of shape (batch, channel, *space). The spatial axes are divisible by the total stride.
            every_stage: Return the logits of every decoder stage, the highest resolution first. `None`: only while
                training with `deep_supervision`.

        Returns:
            Logits of shape (batch, class, *space), or a tuple of them with one entry per decoder stage.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        self._check(x)
        layers: dict[str, nn.Module] = dict(self.network.named_children())
        x = layers["input_block"](x)
        skips = [x]
        for down in _sequence(layers["downsamples"]):
            x = down(x)
            skips.append(x)
        x = layers["bottleneck"](x)
        maps = []
        for up, skip in zip(_sequence(layers["upsamples"]), reversed(skips), strict=True):
            x = up(x, skip)
            maps.append(x)
        logits = layers["output_block"](maps[-1])
        if every_stage is None:
            every_stage = self.training and self.deep_supervision
        if not every_stage:
            return logits
        heads = _sequence(layers["deep_supervision_heads"])
        return (logits, *(head(stage) for head, stage in zip(heads, reversed(maps[:-1]), strict=True)))


def build_dynunet(
    spec: DynUNetSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> DynUNet:
    """Build a DynUNet from its description.

    Args:
        spec: The description.
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch.

    Raises:
        InputError: The patch size is not valid for the network.
        UsageError: MONAI is not installed.
    """
    network = _monai().DynUNet(
        spatial_dims=spec.num_axes,
        in_channels=in_channels,
        out_channels=num_classes,
        kernel_size=spec.kernel_sizes,
        strides=spec.strides,
        upsample_kernel_size=spec.strides[1:],
        filters=spec.features,
        dropout=spec.dropout or None,
        deep_supervision=spec.deep_supervision,
        deep_supr_num=len(spec.features) - 2,
        res_block=spec.residual_blocks,
    )
    total = [1] * spec.num_axes
    for stride in spec.strides:
        total = [whole * step for whole, step in zip(total, stride, strict=True)]
    check_size(patch_size, name="patch_size", total_stride=total, min_deepest_voxels=2)
    return DynUNet(
        network, in_channels=in_channels, total_stride=total, deep_supervision=spec.deep_supervision
    )


def build_segresnet(
    spec: SegResNetSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> MonaiNetwork:
    """Build a SegResNet from its description.

    Args:
        spec: The description.
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch.

    Raises:
        InputError: The patch size is not valid for the network.
        UsageError: MONAI is not installed.
    """
    total_stride = (2 ** (len(spec.blocks_encoder) - 1),) * spec.num_axes
    check_size(patch_size, name="patch_size", total_stride=total_stride)
    network = _monai().SegResNet(
        spatial_dims=spec.num_axes,
        init_filters=spec.features,
        in_channels=in_channels,
        out_channels=num_classes,
        dropout_prob=spec.dropout or None,
        blocks_down=spec.blocks_encoder,
        blocks_up=spec.blocks_decoder,
    )
    return MonaiNetwork(network, title="SegResNet", in_channels=in_channels, total_stride=total_stride)


def build_unetr(
    spec: UNETRSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> MonaiNetwork:
    """Build a UNETR from its description, for images of the patch size.

    Args:
        spec: The description.
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch, and of every image.

    Raises:
        InputError: The patch size is not valid for the network.
        UsageError: MONAI is not installed.
    """
    total_stride = (_UNETR_STRIDE,) * spec.num_axes
    check_size(patch_size, name="patch_size", total_stride=total_stride)
    network = _monai().UNETR(
        in_channels=in_channels,
        out_channels=num_classes,
        img_size=tuple(patch_size),
        feature_size=spec.features,
        hidden_size=spec.hidden_size,
        mlp_dim=spec.mlp_dim,
        num_heads=spec.num_heads,
        dropout_rate=spec.dropout,
        spatial_dims=spec.num_axes,
    )
    for name, _ in list(network.named_modules()):
        if name.endswith(".norm_cross_attn"):  # for an attention that UNETR does not use: it gets no gradient
            network.set_submodule(name, nn.Identity())
    return MonaiNetwork(
        network, title="UNETR", in_channels=in_channels, total_stride=total_stride, fixed_size=patch_size
    )


def build_swin_unetr(
    spec: SwinUNETRSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> MonaiNetwork:
    """Build a SwinUNETR from its description.

    Args:
        spec: The description.
        in_channels: Channels of the images.
        num_classes: Channels of the logits.
        patch_size: Voxels per axis of the training patch.

    Raises:
        InputError: The patch size is not valid for the network.
        UsageError: MONAI is not installed.
    """
    total_stride = (_SWIN_STRIDE,) * spec.num_axes
    check_size(patch_size, name="patch_size", total_stride=total_stride, min_deepest_voxels=2)
    # MONAI reads values of a tensor while it builds the network. Tensors on the meta device have no values.
    with torch.device("cpu"):
        network = _monai().SwinUNETR(
            in_channels=in_channels,
            out_channels=num_classes,
            depths=spec.depths,
            num_heads=spec.num_heads,
            window_size=spec.window_size,
            feature_size=spec.features,
            dropout_path_rate=spec.drop_path,
            spatial_dims=spec.num_axes,
            use_v2=spec.version2,
        )
    if spec.checkpointing:
        _recompute_blocks(network)
    return MonaiNetwork(
        network.to(torch.get_default_device()),
        title="SwinUNETR",
        in_channels=in_channels,
        total_stride=total_stride,
        min_deepest_voxels=2,
    )


def _recompute_blocks(network: nn.Module) -> None:
    """Recompute the transformer blocks in the backward pass.

    Their activations are not kept. MONAI's own checkpointing restores the random state, which a CUDA graph does not
    allow. The recomputed functions here draw no random numbers: the draw of stochastic depth stays outside.
    """
    from monai.networks.nets.swin_unetr import SwinTransformerBlock

    for block in network.modules():
        if isinstance(block, SwinTransformerBlock):
            block.forward_part1 = MethodType(_recomputed_attention, block)
            block.forward_part2 = MethodType(_recomputed_mlp, block)


def _recomputed_attention(block: "SwinTransformerBlock", x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the attention of a block, and again in the backward pass."""
    return _recompute(type(block).forward_part1, block, x, mask)


def _recomputed_mlp(block: "SwinTransformerBlock", x: Tensor) -> Tensor:
    """Compute the perceptron of a block, and again in the backward pass."""
    return block.drop_path(_recompute(lambda tokens: block.mlp(block.norm2(tokens)), x))


def _recompute(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _monai() -> ModuleType:
    """Import MONAI's networks.

    Raises:
        UsageError: MONAI is not installed.
    """
    try:
        import einops  # noqa: F401 - the transformers need it, and MONAI reports it only when they are built
        from monai.networks import nets
    except ImportError as error:
        raise UsageError(
            f"DynUNet, SegResNet, UNETR and SwinUNETR need MONAI, which cannot be imported ({error}). Run: "
            'pip install "scanseg[baselines]"'
        ) from error
    return nets


def _sequence(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a module list."""
    return list(module.children())
