"""Tables that rename published weights to ours and back, per network."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from torch import Tensor, nn

from scanseg.errors import InputError

NUM_DIRECTIONS = 4
Layout = Literal["same", "matrix", "directions"]
"""Storage of our tensor in the official dict.

`same`: unchanged. `matrix`: a matrix stored as a 1x1 convolution. `directions`: the directions and channels of a scan
flattened to one axis.
"""


class Rename(NamedTuple):
    """A pair of names or name prefixes. `{i}` stands for a number."""

    official: str
    """Name in the published implementation."""
    ours: str
    """Name in our network."""
    layout: Layout = "same"
    """Storage of the tensor in the official dict."""


@dataclass(frozen=True)
class WeightMap:
    """The renaming of one network's weights.

    Attributes:
        renames: Pairs of names. The first match applies.
        ignored: Pattern of official names that are documented duplicates or unused.
    """

    renames: tuple[Rename, ...]
    ignored: str = r"(?!)"


def _inside(official: str, ours: str, renames: Iterable[Rename]) -> tuple[Rename, ...]:
    return tuple(
        Rename(f"{official}.{inner.official}", f"{ours}.{inner.ours}", inner.layout) for inner in renames
    )


VSS_BLOCK = (
    Rename("norm", "scan_norm"),
    Rename("op.A_logs", "scan.A_log", "directions"),
    Rename("op.Ds", "scan.D_skip", "directions"),
    Rename("op.x_proj_weight", "scan.x_proj_weight"),
    Rename("op.dt_projs_weight", "scan.dt_weight"),
    Rename("op.dt_projs_bias", "scan.dt_bias"),
    Rename("op.in_proj", "scan.in_proj"),
    Rename("op.conv2d", "scan.conv"),
    Rename("op.out_norm", "scan.out_norm"),
    Rename("op.out_proj", "scan.out_proj"),
    Rename("norm2", "ffn_norm"),
    Rename("mlp.fc1", "ffn.fc1"),
    Rename("mlp.multiscale_conv.dw_convs.{k}", "ffn.multi_scale.convs.{k}"),
    Rename("mlp.fc2", "ffn.fc2"),
)
LKPE = (
    Rename("expand.0.weight", "expand.0.weight", "matrix"),
    Rename("expand.{k}", "expand.{k}"),
    Rename("norm", "norm"),
)
MSVM_UNET = WeightMap(
    (
        Rename("encoder.layer0.0", "encoder.stem.0"),
        Rename("encoder.layer0.2", "encoder.stem.1"),
        Rename("encoder.layer1.0", "encoder.stem.3"),
        Rename("encoder.layer1.2", "encoder.stem.4"),
        *_inside("encoder.layers.{i}.blocks.{j}", "encoder.stages.{i}.{j}", VSS_BLOCK),
        Rename("encoder.downsamples.{i}.1", "encoder.downsamples.{i}.0"),
        Rename("encoder.downsamples.{i}.3", "encoder.downsamples.{i}.1"),
        *_inside("decoder.layers.{i}.up", "decoder.upsamplings.{i}", LKPE),
        Rename("decoder.layers.{i}.concat_layer", "decoder.joins.{i}"),
        *_inside("decoder.layers.{i}.vss_layer.blocks.{j}", "decoder.stages.{i}.{j}", VSS_BLOCK),
        *_inside("decoder.out_layers.0", "decoder.head", LKPE),
        Rename("decoder.out_layers.0.out", "decoder.classify"),
    )
)
VMAMBA = WeightMap(
    (
        Rename("patch_embed.0", "stem.0"),
        Rename("patch_embed.2", "stem.1"),
        Rename("patch_embed.5", "stem.3"),
        Rename("patch_embed.7", "stem.4"),
        *_inside("layers.{i}.blocks.{j}", "stages.{i}.{j}", VSS_BLOCK),
        Rename("layers.{i}.downsample.1", "downsamples.{i}.0"),
        Rename("layers.{i}.downsample.3", "downsamples.{i}.1"),
    ),
    ignored=r"classifier\..*",
)
RESIDUAL_BLOCK = (
    Rename("conv1.conv", "conv1.conv"),
    Rename("conv1.norm", "conv1.norm"),
    Rename("conv2.conv", "conv2.conv"),
    Rename("conv2.norm", "conv2.norm"),
    Rename("conv1", "conv1"),
    Rename("norm1", "norm1"),
    Rename("conv2", "conv2"),
    Rename("norm2", "norm2"),
    Rename("conv3", "shortcut"),
)
VIL = (
    Rename("vil.norm", "block.norm"),
    Rename("vil.layer.proj_up", "block.proj_up"),
    Rename("vil.layer.conv1d", "block.conv"),
    Rename("vil.layer.q_proj", "block.q_proj"),
    Rename("vil.layer.k_proj", "block.k_proj"),
    Rename("vil.layer.v_proj", "block.v_proj"),
    Rename("vil.layer.mlstm_cell", "block.cell"),
    Rename("vil.layer.learnable_skip", "block.learnable_skip"),
    Rename("vil.layer.proj_down", "block.proj_down"),
)
XLSTM_UNET = WeightMap(
    (
        *_inside("encoder.stem.{j}", "encoder.stem.{j}", RESIDUAL_BLOCK),
        *_inside("encoder.stages.{i}.{j}", "encoder.stages.{i}.{j}", RESIDUAL_BLOCK),
        *_inside("encoder.xlstm_layers.{i}", "sequence_layers.{i}", (*VIL, *RESIDUAL_BLOCK)),
        *_inside("xlstm", "bottleneck", VIL),
        Rename("decoder.upsample_layers.{i}.conv", "decoder.projections.{i}"),
        *_inside("decoder.stages.{i}.{j}", "decoder.stages.{i}.{j}", RESIDUAL_BLOCK),
        Rename("decoder.seg_layers.{i}", "decoder.heads.{i}"),
    ),
    ignored=r".*\.all_modules\..*|decoder\.encoder\..*|(xlstm|encoder\.xlstm_layers\.\d+)\.norm\..*",
)
CONV_NORM = (Rename("conv", "conv"), Rename("norm", "norm"))
NNUNET_DECODER = (
    Rename("decoder.transpconvs.{i}", "decoder.upsamplings.{i}"),
    *_inside("decoder.stages.{i}.convs.{j}", "decoder.stages.{i}.{j}", CONV_NORM),
    Rename("decoder.seg_layers.{i}", "decoder.heads.{i}"),
)
NNUNET_DUPLICATES = r".*\.all_modules\..*|decoder\.encoder\..*"
PLAIN_UNET = WeightMap(
    (*_inside("encoder.stages.{i}.0.convs.{j}", "encoder.{i}.{j}", CONV_NORM), *NNUNET_DECODER),
    ignored=NNUNET_DUPLICATES,
)
RESIDUAL_UNET = WeightMap(
    (
        *_inside("encoder.stem.convs.0", "stem", CONV_NORM),
        *_inside("encoder.stages.{i}.blocks.{j}.conv1", "encoder.{i}.{j}.conv1", CONV_NORM),
        *_inside("encoder.stages.{i}.blocks.{j}.conv2", "encoder.{i}.{j}.conv2", CONV_NORM),
        # The convolution of a shortcut follows a pooling layer. In stages of stride 1 its official number is 0.
        *_inside("encoder.stages.{i}.blocks.{j}.skip.1", "encoder.{i}.{j}.shortcut", CONV_NORM),
        *NNUNET_DECODER,
    ),
    ignored=NNUNET_DUPLICATES,
)
WEIGHT_MAPS: Mapping[str, WeightMap] = MappingProxyType(
    {
        "msvm-unet": MSVM_UNET,
        "xlstm-unet": XLSTM_UNET,
        "plain-unet": PLAIN_UNET,
        "residual-unet": RESIDUAL_UNET,
        "vmamba": VMAMBA,
    }
)
"""The maps, by kind of network.

`vmamba` maps ImageNet weights to the `encoder` of an MSVM-UNet.
"""

TO_OURS: Mapping[Layout, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "same": lambda tensor: tensor,
        "matrix": lambda tensor: tensor.flatten(1),
        "directions": lambda tensor: tensor.unflatten(0, (NUM_DIRECTIONS, -1)),
    }
)
TO_OFFICIAL: Mapping[Layout, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "same": lambda tensor: tensor,
        "matrix": lambda tensor: tensor[:, :, None, None],
        "directions": lambda tensor: tensor.flatten(0, 1),
    }
)


def official_to_ours(state: Mapping[str, Tensor], *, kind: str) -> dict[str, Tensor]:
    """Rename an official state dict to our names and layouts.

    Documented duplicates are dropped.

    Args:
        state: Official names and tensors: weights or gradients.
        kind: Key of `WEIGHT_MAPS`.

    Raises:
        InputError: The kind or some names are unknown. The message lists all of them.

    Example:
        >>> import torch
        >>> from scanseg.networks import official_to_ours
        >>> list(official_to_ours({"decoder.seg_layers.0.bias": torch.zeros(2)}, kind="xlstm-unet"))
        ['decoder.heads.0.bias']
    """
    weight_map = _find_map(kind)
    ignored = re.compile(weight_map.ignored)
    kept = {name: tensor for name, tensor in state.items() if not ignored.fullmatch(name)}
    rules = [
        (_pattern(rename.official), rename.ours, TO_OURS[rename.layout]) for rename in weight_map.renames
    ]
    return _rename(kept, rules, source=f"official weights of {kind}")


def ours_to_official(state: Mapping[str, Tensor], *, kind: str) -> dict[str, Tensor]:
    """Rename our state dict to the official names and layouts.

    Args:
        state: Our names and tensors: weights or gradients.
        kind: Key of `WEIGHT_MAPS`.

    Raises:
        InputError: The kind or some names are unknown. The message lists all of them.

    Example:
        >>> import torch
        >>> from scanseg.networks import ours_to_official
        >>> list(ours_to_official({"decoder.heads.0.bias": torch.zeros(2)}, kind="xlstm-unet"))
        ['decoder.seg_layers.0.bias']
    """
    renames = _find_map(kind).renames
    rules = [(_pattern(rename.ours), rename.official, TO_OFFICIAL[rename.layout]) for rename in renames]
    return _rename(state, rules, source=f"our weights of {kind}")


def load_official(network: nn.Module, state: Mapping[str, Tensor], *, kind: str) -> None:
    """Load an official state dict into our network.

    Args:
        network: The network. For `vmamba`: the encoder of an MSVM-UNet.
        state: Official names and tensors.
        kind: Key of `WEIGHT_MAPS`.

    Raises:
        InputError: Names are missing or unexpected, or tensors have another shape. The message lists all of them.

    Example:
        >>> from scanseg.networks import MSVMUNet, load_official, ours_to_official
        >>> network = MSVMUNet(3, 2, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1))
        >>> official = ours_to_official(network.state_dict(), kind="msvm-unet")
        >>> load_official(network, official, kind="msvm-unet")
    """
    found = official_to_ours(state, kind=kind)
    wanted = network.state_dict()
    both = wanted | found
    official = dict(zip(both, ours_to_official(both, kind=kind), strict=True))
    faults = [f"missing {official[name]}" for name in wanted.keys() - found.keys()]
    faults += [f"unexpected {official[name]}" for name in found.keys() - wanted.keys()]
    faults += [
        f"{official[name]}: expected shape {tuple(wanted[name].shape)}, got {tuple(found[name].shape)}"
        for name in wanted.keys() & found.keys()
        if wanted[name].shape != found[name].shape
    ]
    if faults:
        raise InputError(
            f"the weights do not match the network ({kind}): {'; '.join(sorted(faults))}. Build the network with the "
            "sizes of the weights."
        )
    network.load_state_dict(found)


def _find_map(kind: str) -> WeightMap:
    if kind not in WEIGHT_MAPS:
        raise InputError(f"weight map: expected one of {', '.join(WEIGHT_MAPS)}, got {kind!r}.")
    return WEIGHT_MAPS[kind]


def _pattern(template: str) -> re.Pattern[str]:
    numbers = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(template))
    return re.compile(rf"{numbers}(?P<rest>\..*)?")


def _rename(
    state: Mapping[str, Tensor],
    rules: list[tuple[re.Pattern[str], str, Callable[[Tensor], Tensor]]],
    *,
    source: str,
) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in state.items():
        for pattern, target, convert in rules:
            if match := pattern.fullmatch(name):
                numbers = match.groupdict()
                rest = numbers.pop("rest") or ""
                renamed[target.format(**numbers) + rest] = convert(tensor)
                break
        else:
            unknown.append(name)
    if unknown:
        raise InputError(f"{source}: unknown names {', '.join(sorted(unknown))}. Check the kind of network.")
    return renamed
