"""The recipes: functions from what was measured to a plan."""

from collections.abc import Callable
from dataclasses import dataclass

from scanseg.errors import UsageError
from scanseg.planning.augmentations import mirror_axes, nnunet_augmentation, slice_augmentation
from scanseg.planning.memory import PatchPlan, choose_patch
from scanseg.planning.normalizations import nnunet_normalizations, slice_normalizations
from scanseg.planning.spacing import TargetGrid, choose_grid
from scanseg.specs import (
    AdamWSpec,
    DatasetSpec,
    Fingerprint,
    InferenceSpec,
    LossSpec,
    MSVMUNetSpec,
    PlainUNetSpec,
    Plan,
    PreprocessingSpec,
    ResidualUNetSpec,
    SamplingSpec,
    ScheduleSpec,
    TrainingSpec,
    XLSTMUNetSpec,
)

_SLICE_SIZE = (224, 224)
_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
"""Blocks of each encoder stage of nnU-Net's residual-encoder U-Net."""


@dataclass(frozen=True)
class Recipe:
    """A way from a fingerprint to a plan."""

    description: str
    make: Callable[[Fingerprint, DatasetSpec], Plan]


def make_plan(
    fingerprint: Fingerprint, dataset: DatasetSpec, *, recipe: str, dataset_path: str | None = None
) -> Plan:
    """Make a plan.

    Args:
        fingerprint: Measures of the data set.
        dataset: Its channels and labels.
        recipe: Name of a recipe.
        dataset_path: Where the raw data set lies, to be noted in the plan.

    Raises:
        UsageError: There is no such recipe.
    """
    if recipe not in RECIPES:
        raise UsageError(f"recipe {recipe!r} is unknown; choose one of {', '.join(RECIPES)}")
    plan = RECIPES[recipe].make(fingerprint, dataset)
    return plan.model_copy(update={"recipe": recipe, "dataset_path": dataset_path})


def _planned(kind: str, *, num_patch_axes: int | None = None) -> Callable[[Fingerprint, DatasetSpec], Plan]:
    """Return a recipe whose patches are planned as nnU-Net does, with one of the staged networks."""

    def make(fingerprint: Fingerprint, dataset: DatasetSpec) -> Plan:
        grid = choose_grid(fingerprint)
        axes = num_patch_axes or fingerprint.num_axes
        patch = choose_patch(
            grid.spacing[3 - axes :],
            grid.median_shape[3 - axes :],
            num_channels=dataset.num_channels,
            num_outputs=1 + len(dataset.foreground),
            num_voxels=grid.num_voxels,
        )
        flips = mirror_axes(dataset, axis_order=grid.axis_order, num_patch_axes=axes)
        return Plan(
            recipe="",
            dataset=dataset,
            num_axes=3 if fingerprint.num_axes == 3 else 2,
            preprocessing=PreprocessingSpec(
                axis_order=grid.axis_order,
                normalizations=nnunet_normalizations(dataset, fingerprint),
                spacing=_target_spacing(grid, fingerprint, num_patch_axes=axes),
            ),
            sampling=SamplingSpec(patch_size=patch.topology.patch_size, batch_size=patch.batch_size),
            augmentation=nnunet_augmentation(patch.topology.patch_size, mirror_axes=flips),
            network=_staged_network(kind, patch),
            training=TrainingSpec(loss=LossSpec(dice_over_batch=axes == 2)),
            inference=InferenceSpec(mirror_axes=flips),
        )

    return make


def _target_spacing(
    grid: TargetGrid, fingerprint: Fingerprint, *, num_patch_axes: int
) -> tuple[float | None, float, float] | None:
    """Return the spacing to resample to: in the plane only for a 2D network, none for images without spacing."""
    if fingerprint.num_axes == 2 and all(case.spacing[1:] == (1.0, 1.0) for case in fingerprint.cases):
        return None
    return (None if num_patch_axes == 2 else grid.spacing[0], grid.spacing[1], grid.spacing[2])


def _staged_network(kind: str, patch: PatchPlan) -> XLSTMUNetSpec | ResidualUNetSpec | PlainUNetSpec:
    """Return the description of a network for planned stages."""
    features, kernels, strides = patch.features, patch.topology.kernel_sizes, patch.topology.strides
    decoder_stages = len(features) - 1
    match kind:
        case "xlstm-unet":
            return XLSTMUNetSpec(features=features, kernel_sizes=kernels, strides=strides)
        case "residual-unet":
            return ResidualUNetSpec(
                features=features,
                kernel_sizes=kernels,
                strides=strides,
                num_blocks_encoder=tuple(_RESIDUAL_BLOCKS[min(s, 7)] for s in range(len(features))),
                num_convs_decoder=(1,) * decoder_stages,
            )
        case "plain-unet":
            return PlainUNetSpec(
                features=features,
                kernel_sizes=kernels,
                strides=strides,
                num_convs_encoder=(2,) * len(features),
                num_convs_decoder=(2,) * decoder_stages,
            )
        case _:
            raise ValueError(f"no planned network {kind!r}")


def _msvm_unet(fingerprint: Fingerprint, dataset: DatasetSpec) -> Plan:
    """Whole slices resized to 224x224, AdamW, cosine. Source: Chen et al. 2024, arXiv:2408.13735, section IV."""
    grid = choose_grid(fingerprint)
    flips = mirror_axes(dataset, axis_order=grid.axis_order, num_patch_axes=2)
    num_slices = sum(case.source_shape[grid.axis_order[0]] for case in fingerprint.cases)
    is_ct = any(name.casefold() == "ct" for name in dataset.channel_names)
    return Plan(
        recipe="",
        dataset=dataset,
        num_axes=3 if fingerprint.num_axes == 3 else 2,
        preprocessing=PreprocessingSpec(
            axis_order=grid.axis_order,
            crop_to_nonzero=False,
            normalizations=slice_normalizations(dataset),
            slice_size=_SLICE_SIZE,
            label_order=0,
        ),
        sampling=SamplingSpec(
            patch_size=_SLICE_SIZE, batch_size=max(2, min(32, num_slices // 4)), order="every-slice"
        ),
        augmentation=slice_augmentation(mirror_axes=flips),
        network=MSVMUNetSpec(),
        training=TrainingSpec(
            epochs=300,
            iterations_per_epoch=None,
            optimizer=AdamWSpec(lr=5e-4, weight_decay=1e-3 if is_ct else 1e-4),
            schedule=ScheduleSpec(kind="cosine", final_lr=1e-6),
            loss=LossSpec(dice_weight=0.6, cross_entropy_weight=0.4, dice_background=True, dice_squared=True),
            gradient_clip=None,
        ),
        inference=InferenceSpec(mode="slices", window_batch=8, mirror_axes=flips),
    )


RECIPES: dict[str, Recipe] = {
    "xlstm-unet": Recipe(
        "xLSTM-UNet (Enc) on planned patches, 3D or 2D as the images are", _planned("xlstm-unet")
    ),
    "xlstm-unet-2d": Recipe(
        "xLSTM-UNet (Enc) on planned patches of slices", _planned("xlstm-unet", num_patch_axes=2)
    ),
    "msvm-unet": Recipe("MSVM-UNet on whole slices resized to 224x224", _msvm_unet),
    "residual-unet": Recipe("nnU-Net's residual-encoder U-Net on planned patches", _planned("residual-unet")),
    "plain-unet": Recipe("nnU-Net's plain U-Net on planned patches", _planned("plain-unet")),
}
"""Name to recipe; the names that `--recipe` takes."""
