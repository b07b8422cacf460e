"""Networks of MONAI, with the checks and the results that all networks of the table have."""

from collections.abc import Callable, Sequence
from types import MethodType, ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scanseg.errors import InputError, UsageError
from scanseg.networks.input_check import check_image, check_size
from scanseg.specs import DynUNetSpec, SegResNetSpec, SwinUNETRSpec, UNETRSpec

_UNETR_STRIDE = 16
_SWIN_STRIDE = 32


class _CheckedNetwork(nn.Module):
    """A network of MONAI that knows which images it takes.

    Args:
        network: The network.
        title: Its name, for messages.
        in_channels: Channels of the images.
        total_stride: Product of the strides of all stages, per axis.
        min_deepest_voxels: Voxels that the deepest map must have.
        fixed_size: The only size that images may have, if the network has one.
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
                f"image size {tuple(x.shape[2:])} does not fit: {self.title} learns the places of its tokens, which "
                f"fixes the image size to the patch_size {self.fixed_size}. Cut windows of that size, or build the "
                "network for another patch_size."
            )


class MonaiNetwork(_CheckedNetwork):
    """A network of MONAI with one result."""

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch class *space"]:
        """Return the logits.

        Args:
            x: Images whose axes are divisible by the total stride.

        Raises:
            InputError: The images have another rank, channel count or size.
        """
        self._check(x)
        return self.network(x)


class DynUNet(_CheckedNetwork):
    """MONAI's DynUNet, whose decoder stages give logits at their own resolution.

    While it trains with `deep_supervision`, logits of every decoder stage come out, the highest resolution first.
    MONAI's own pass enlarges them to the full resolution, and keeps them in a list that copies cannot have.

    Args:
        network: MONAI's network.
        in_channels: Channels of the images.
        total_stride: Product of the strides of all stages, per axis.
        deep_supervision: Whether there are logits of every decoder stage.
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
        # The same layers again, for the pass that is not used: weights would be stored twice.
        network.skip_layers = nn.Identity()
        network.heads = []  # type: ignore[assignment]
        self.deep_supervision = deep_supervision

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
    """Build a DynUNet. See `scanseg.networks.build_network`."""
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
    """Build a SegResNet. See `scanseg.networks.build_network`."""
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
    """Build a UNETR for images of the patch size. See `scanseg.networks.build_network`."""
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
        if name.endswith(".norm_cross_attn"):  # of an attention that UNETR does not have: it gets no gradient
            network.set_submodule(name, nn.Identity())
    return MonaiNetwork(
        network, title="UNETR", in_channels=in_channels, total_stride=total_stride, fixed_size=patch_size
    )


def build_swin_unetr(
    spec: SwinUNETRSpec, in_channels: int, num_classes: int, patch_size: Sequence[int]
) -> MonaiNetwork:
    """Build a SwinUNETR. See `scanseg.networks.build_network`."""
    total_stride = (_SWIN_STRIDE,) * spec.num_axes
    check_size(patch_size, name="patch_size", total_stride=total_stride, min_deepest_voxels=2)
    # MONAI reads values of a tensor while it builds, which a device without memory does not have.
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
    """Let the transformer blocks be computed again in the backward pass, rather than kept.

    MONAI's own way puts the random state back for it, which a CUDA graph does not allow. What is computed again here
    draws nothing: the drawing of stochastic depth stays outside.
    """
    from monai.networks.nets.swin_unetr import SwinTransformerBlock

    for block in network.modules():
        if isinstance(block, SwinTransformerBlock):
            block.forward_part1 = MethodType(_recomputed_attention, block)
            block.forward_part2 = MethodType(_recomputed_mlp, block)


def _recomputed_attention(block: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention of a block, which is computed again in the backward pass."""
    return _recompute(type(block).forward_part1, block, x, mask)


def _recomputed_mlp(block: Any, x: Tensor) -> Tensor:
    """Return the perceptron's part of a block, which is computed again in the backward pass."""
    return block.drop_path(_recompute(lambda tokens: block.mlp(block.norm2(tokens)), x))


def _recompute(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _monai() -> ModuleType:
    """Import MONAI's networks.

    Raises:
        UsageError: MONAI is not installed.
    """
    try:
        import einops  # noqa: F401 - the transformers need it, and MONAI says so only when they are built
        from monai.networks import nets
    except ImportError as error:
        raise UsageError(
            f"DynUNet, SegResNet, UNETR and SwinUNETR come with MONAI, which cannot be imported ({error}): "
            'pip install "scanseg[baselines]"'
        ) from error
    return nets


def _sequence(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a module list."""
    return list(module.children())
