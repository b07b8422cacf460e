"""Networks for planned stages, and another network in a plan's place of one."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.planning.patches import PatchPlan, stage_features
from scanseg.planning.topology import choose_topology
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
"""Networks whose sizes follow from a patch."""

_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
"""Blocks of each encoder stage of nnU-Net's residual-encoder U-Net."""
_MAX_FEATURES = {2: 512, 3: 320}
_STRIDES: dict[str, int] = {"unetr": 16, "swin-unetr": 32}
"""Stride, on every axis, of the networks that do not follow the planned stages."""


def planned_network(kind: PlannedKind, patch: PatchPlan) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return the description of a network for planned stages, and the patch size that it takes.

    Args:
        kind: The network.
        patch: The planned patch and stages. Networks with strides of their own take the nearest patch that they divide.
    """
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


def replace_network(plan: Plan, kind: str) -> Plan:
    """Put another network into a plan; all else stays, so that the networks alone are compared.

    Stages follow from the plan's patch. Slices keep their size, patches become the nearest that the network takes.

    Args:
        plan: The plan.
        kind: Kind of the network.

    Raises:
        UsageError: There is no such network, it has other axes, or slices of the plan's size do not fit it.
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
            f"network {kind!r} is unknown; choose one of msvm-unet, {', '.join(get_args(PlannedKind))}"
        )
    if wanted != size and plan.preprocessing.slice_size is not None:
        raise UsageError(
            f"slices of {size} do not fit {kind}; the nearest size is {wanted}: --set sampling.patch_size, "
            "preprocessing.slice_size"
        )
    sampling = plan.sampling.model_copy(update={"patch_size": wanted})
    content = plan.model_dump() | {"network": network.model_dump(), "sampling": sampling.model_dump()}
    return Plan.model_validate(content)


def _msvm_unet(size: Sequence[int]) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return MSVM-UNet, and the patch size that it takes."""
    if len(size) != 2:
        raise UsageError(
            f"msvm-unet reads slices; the plan's patches {tuple(size)} have {counted(len(size), 'axis', 'axes')}"
        )
    return MSVMUNetSpec(), _divisible(size, 32, min_deepest_voxels=1)


def _stages_of(plan: Plan) -> PatchPlan:
    """Return the stages that nnU-Net's rules give for a plan's patch."""
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
    """Return the nearest size that a stride divides on every axis, with enough voxels left."""
    nearest = [max(1, (voxels + stride // 2) // stride) * stride for voxels in size]
    while math.prod(voxels // stride for voxels in nearest) < min_deepest_voxels:
        nearest[-1] += stride
    return tuple(nearest)


def replace_patch(plan: Plan, patch_size: Sequence[int]) -> Plan:
    """Give a plan another patch size, and its network the stages that nnU-Net's rules give for it.

    Args:
        plan: A plan of windows.
        patch_size: Voxels per axis, as many axes as the plan's patch has.

    Raises:
        UsageError: The plan is of whole slices, or the patch has other axes.
    """
    if plan.preprocessing.slice_size is not None or len(patch_size) != len(plan.sampling.patch_size):
        raise UsageError(
            f"patch size {tuple(patch_size)} cannot replace that of the plan {plan.sampling.patch_size}: slices have "
            "their size, and the axes must be as many"
        )
    wanted = plan.sampling.model_copy(update={"patch_size": tuple(patch_size)})
    other = plan.model_copy(update={"sampling": wanted})
    network, size = _network_like(plan.network, _stages_of(other))
    sampling = wanted.model_copy(update={"patch_size": size})
    content = plan.model_dump() | {"network": network.model_dump(), "sampling": sampling.model_dump()}
    return Plan.model_validate(content)


def _network_like(network: NetworkSpec, patch: PatchPlan) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return a network of the same kind for other stages; what does not depend on stages stays."""
    kinds = [kind for kind in get_args(PlannedKind) if kind == network.kind]
    if not kinds:
        raise UsageError(f"{network.kind} reads whole slices; its plan has no patches to replace")
    planned, size = planned_network(kinds[0], patch)
    sized = {"features", "kernel_sizes", "strides", "num_axes", "num_convs_encoder", "num_convs_decoder"}
    of_stages = sized | {"num_blocks_encoder"} if network.kind == "residual-unet" else sized
    kept = {name: value for name, value in network.model_dump().items() if name not in of_stages}
    return type(planned).model_validate(planned.model_dump() | kept), size
