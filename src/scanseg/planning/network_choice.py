"""Networks for planned stages, and replacement of a plan's network."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.planning.patches import PatchPlan, stage_features
from scanseg.planning.topology import add_stages, choose_topology
from scanseg.planning.validated import validated_plan
from scanseg.specs import (
    DynUNetSpec,
    MSVMUNetSpec,
    NetworkSpec,
    PlainUNetSpec,
    Plan,
    ResidualUNetSpec,
    SegResNetSpec,
    SwinUNETRSpec,
    UNETRSpec,
    XLSTMUNetSpec,
)

PlannedKind = Literal[
    "xlstm-unet", "residual-unet", "plain-unet", "dynunet", "segresnet", "unetr", "swin-unetr"
]
"""Networks whose stages or patch sizes are planned."""

_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
"""Blocks of each encoder stage of nnU-Net's residual-encoder U-Net."""
_MAX_FEATURES = {2: 512, 3: 320}
"""Maximum number of features, by the number of patch axes."""
_STRIDES: dict[str, int] = {"unetr": 16, "swin-unetr": 32}
"""Total stride along every axis of networks with stages of their own."""
_MIN_DYNUNET_STAGES = 3
"""Minimum number of stages of DynUNet."""


def planned_network(kind: PlannedKind, patch: PatchPlan) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return a network for planned stages, and its patch size.

    Args:
        kind: Kind of the network.
        patch: Planned patch and stages.

    Returns:
        Spec and patch size. For networks with stages of their own, it is the nearest size that their stride divides.
    """
    if kind == "dynunet":
        patch = _with_stages(patch, _MIN_DYNUNET_STAGES)
    features, kernels, strides = patch.features, patch.topology.kernel_sizes, patch.topology.strides
    size, decoder_stages = patch.topology.patch_size, len(features) - 1
    axes: Literal[2, 3] = 3 if len(size) == 3 else 2
    match kind:
        case "xlstm-unet":
            return XLSTMUNetSpec(features=features, kernel_sizes=kernels, strides=strides), size
        case "residual-unet":
            residual = ResidualUNetSpec(
                features=features,
                kernel_sizes=kernels,
                strides=strides,
                num_blocks_encoder=tuple(_RESIDUAL_BLOCKS[min(s, 7)] for s in range(len(features))),
                num_convs_decoder=(1,) * decoder_stages,
            )
            return residual, size
        case "plain-unet":
            plain = PlainUNetSpec(
                features=features,
                kernel_sizes=kernels,
                strides=strides,
                num_convs_encoder=(2,) * len(features),
                num_convs_decoder=(2,) * decoder_stages,
            )
            return plain, size
        case "dynunet":
            return DynUNetSpec(features=features, kernel_sizes=kernels, strides=strides), size
        case "segresnet":
            spec = SegResNetSpec(num_axes=axes)
            return spec, _divisible(size, 2 ** (len(spec.blocks_encoder) - 1), min_deepest_voxels=1)
        case "unetr":
            return UNETRSpec(num_axes=axes), _divisible(size, _STRIDES[kind], min_deepest_voxels=1)
        case "swin-unetr":
            return SwinUNETRSpec(num_axes=axes), _divisible(size, _STRIDES[kind], min_deepest_voxels=2)


def _with_stages(patch: PatchPlan, num_stages: int) -> PatchPlan:
    """Return a planned patch with at least a number of stages."""
    topology = add_stages(patch.topology, num_stages=num_stages)
    features = stage_features(len(topology.strides), max_features=_MAX_FEATURES[len(topology.patch_size)])
    return patch if topology is patch.topology else replace(patch, topology=topology, features=features)


def replace_network(plan: Plan, kind: str) -> Plan:
    """Replace the network of a plan.

    Everything else stays, so that a comparison is about the networks only. Stages follow from the plan's patch. Slices
    keep their size. Patches get the nearest size that the network supports.

    Args:
        plan: The plan. It is not changed.
        kind: Kind of the new network.

    Raises:
        UsageError: The network is unknown, has other axes, or does not support slices of the plan's size.
    """
    if kind == plan.network.kind:
        return plan
    size = plan.sampling.patch_size
    if kind == "msvm-unet":
        network, wanted = _msvm_unet(size)
    elif kind in get_args(PlannedKind):
        stages = [stage for stage in get_args(PlannedKind) if stage == kind]
        network, wanted = planned_network(stages[0], _stages_of(plan))
    else:
        raise UsageError(
            f"network {kind!r} is unknown. Choose msvm-unet, {', '.join(get_args(PlannedKind))}."
        )
    if wanted != size and plan.preprocessing.slice_size is not None:
        raise UsageError(
            f"{kind}: expected slices of a size like {wanted}, got {size}. Change it by --set sampling.patch_size and "
            "preprocessing.slice_size."
        )
    sampling = plan.sampling.model_copy(update={"patch_size": wanted})
    content = plan.model_dump() | {"network": network.model_dump(), "sampling": sampling.model_dump()}
    return validated_plan(content, purpose=f"network {kind} with the plan")


def _msvm_unet(size: Sequence[int]) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return MSVM-UNet, and the nearest patch size that it supports.

    Raises:
        UsageError: The patch has 3 axes.
    """
    if len(size) != 2:
        raise UsageError(
            f"msvm-unet: expected slices, got patches {tuple(size)} with {counted(len(size), 'axis', 'axes')}. Choose "
            "a recipe of slices."
        )
    return MSVMUNetSpec(), _divisible(size, 32, min_deepest_voxels=1)


def _stages_of(plan: Plan) -> PatchPlan:
    """Return the stages for a plan's patch by nnU-Net's rules."""
    size = plan.sampling.patch_size
    known = (None, *(plan.preprocessing.spacing or (None, None, None)))
    spacing = [value or 1.0 for value in known[-len(size) :]]
    topology = choose_topology(spacing, size)
    return PatchPlan(
        topology=topology,
        features=stage_features(len(topology.strides), max_features=_MAX_FEATURES[len(size)]),
        batch_size=plan.sampling.batch_size,
    )


def _divisible(size: Sequence[int], stride: int, *, min_deepest_voxels: int) -> tuple[int, ...]:
    """Return the nearest size that a stride divides along every axis.

    Args:
        size: Voxels along each axis.
        stride: Total stride.
        min_deepest_voxels: Minimum number of voxels at the lowest resolution.
    """
    nearest = [max(1, (voxels + stride // 2) // stride) * stride for voxels in size]
    while math.prod(voxels // stride for voxels in nearest) < min_deepest_voxels:
        nearest[-1] += stride
    return tuple(nearest)


def replace_patch(plan: Plan, patch_size: Sequence[int]) -> Plan:
    """Replace the patch size of a plan.

    The stages of its network follow nnU-Net's rules.

    Args:
        plan: A plan with windows. It is not changed.
        patch_size: Voxels per axis, with as many axes as the plan's patch.

    Raises:
        UsageError: The plan is for whole slices, or the patch has another number of axes.
    """
    if plan.preprocessing.slice_size is not None or len(patch_size) != len(plan.sampling.patch_size):
        raise UsageError(
            f"patch size: expected {counted(len(plan.sampling.patch_size), 'axis', 'axes')} and a plan without "
            f"slice_size, got {tuple(patch_size)} for {plan.sampling.patch_size} of the plan. Choose another size or "
            f"plan."
        )
    wanted = plan.sampling.model_copy(update={"patch_size": tuple(patch_size)})
    other = plan.model_copy(update={"sampling": wanted})
    network, size = _network_like(plan.network, _stages_of(other))
    sampling = wanted.model_copy(update={"patch_size": size})
    content = plan.model_dump() | {"network": network.model_dump(), "sampling": sampling.model_dump()}
    return validated_plan(content, purpose=f"patch size {tuple(patch_size)} with the plan")


def _network_like(network: NetworkSpec, patch: PatchPlan) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return a network of the same kind for other stages.

    Fields that do not depend on stages keep their values.

    Raises:
        UsageError: The network reads whole slices.
    """
    kinds = [kind for kind in get_args(PlannedKind) if kind == network.kind]
    if not kinds:
        raise UsageError(
            f"{network.kind} reads whole slices, so its plan has no patches. Choose another network."
        )
    planned, size = planned_network(kinds[0], patch)
    sized = {"features", "kernel_sizes", "strides", "num_axes", "num_convs_encoder", "num_convs_decoder"}
    of_stages = sized | {"num_blocks_encoder"} if network.kind == "residual-unet" else sized
    kept = {name: value for name, value in network.model_dump().items() if name not in of_stages}
    return type(planned).model_validate(planned.model_dump() | kept), size
