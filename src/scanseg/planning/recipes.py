"""Recipes: functions from a fingerprint to a plan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from scanseg.errors import InputError, UsageError
from scanseg.planning.augmentations import (
    fast_augmentation,
    mirror_axes,
    nnunet_augmentation,
    slice_augmentation,
    tuned_slice_augmentation,
)
from scanseg.planning.mirroring import mirror_by_likeness
from scanseg.planning.network_choice import PlannedKind, planned_network
from scanseg.planning.normalizations import nnunet_normalizations, slice_normalizations
from scanseg.planning.patches import choose_patch
from scanseg.planning.pictures import has_instances, has_pictures, picture_stage, plan_pictures
from scanseg.planning.sizes import limit_network, limit_slices, limit_stage, limit_training
from scanseg.planning.spacing import TargetGrid, choose_grid
from scanseg.planning.stages import Stage, choose_stages
from scanseg.specs import (
    AdamWSpec,
    CascadeSpec,
    DatasetSpec,
    Fingerprint,
    InferenceSpec,
    LossSpec,
    MSVMUNetSpec,
    Plan,
    PlanSize,
    PreprocessingSpec,
    SamplingSpec,
    ScheduleSpec,
    TrainingSpec,
    Transform,
    describe_faults,
)

_Resolution = Literal["full", "2d", "low", "cascade"]
"""Resolution of a recipe. `cascade`: the second stage at full resolution."""

_SLICE_SIZE = (224, 224)
"""Size of slices of MSVM-UNet's recipe."""
_TUNED_SLICE_SIZE = (256, 256)
"""Size of slices of the recipe `msvm-unet-tuned`."""
_USUAL_TRAINING = TrainingSpec()
"""nnU-Net's training."""
_SLOW_TRAINING = TrainingSpec(optimizer=AdamWSpec(lr=1e-4, weight_decay=1e-5))
"""Training of networks with attention, which fail at nnU-Net's learning rate of 0.01.

SegResNet's authors use Adam at this rate too.
"""

_FAST_TRAINING = TrainingSpec(epochs=40, optimizer=AdamWSpec(lr=1e-3), ema_decay=0.995)
"""Training of thousands of steps that reaches the Dice of nnU-Net's ten thousands.

See docs/results/hippocampus-100s.md.
"""


@dataclass(frozen=True)
class Recipe:
    """Function from a fingerprint to a plan, with a description."""

    description: str
    """One line for `--help`."""
    make: Callable[[Fingerprint, DatasetSpec, PlanSize], Plan]
    """Returns the plan of a fingerprint, a data set and a size."""
    is_fast: bool = False
    """The recipe is for trainings of minutes. Its default size on a CPU is `small`."""


def plan_recipe(
    fingerprint: Fingerprint,
    dataset: DatasetSpec,
    *,
    recipe: str,
    size: PlanSize = "full",
    dataset_path: str | None = None,
) -> Plan:
    """Make a plan by a recipe.

    Args:
        fingerprint: Fingerprint of the data set.
        dataset: Channels and labels of the data set.
        recipe: Name of the recipe.
        size: Size of the plan.
        dataset_path: Folder of the raw data set, which the plan records.

    Raises:
        InputError: The data set has no resolution as the recipe needs, or does not fit the recipe in another way.
        UsageError: The recipe is unknown.
    """
    if recipe not in RECIPES:
        raise UsageError(f"recipe {recipe!r}: expected one of {', '.join(RECIPES)}.")
    try:
        plan = RECIPES[recipe].make(fingerprint, dataset, size)
    except ValidationError as error:
        raise InputError(
            f"{dataset.name}: expected a data set that fits the recipe {recipe}, got "
            f"{describe_faults(error, content={})}. Choose another recipe."
        ) from error
    return plan.model_copy(update={"recipe": recipe, "size": size, "dataset_path": dataset_path})


def _planned(
    kind: PlannedKind,
    *,
    resolution: _Resolution = "full",
    training: TrainingSpec = _USUAL_TRAINING,
    augmentation: Callable[..., tuple[Transform, ...]] = nnunet_augmentation,
    is_fast: bool = False,
) -> Callable[[Fingerprint, DatasetSpec, PlanSize], Plan]:
    """Return a recipe with patches planned by nnU-Net's rules.

    Args:
        kind: Kind of the network.
        resolution: Resolution of the plan.
        training: Training of the plan, except its loss.
        augmentation: Returns the transforms of a patch size.
        is_fast: Plan colour pictures by their own rules.
    """

    def make(fingerprint: Fingerprint, dataset: DatasetSpec, size: PlanSize) -> Plan:
        stage, batch_dice = _choose_stage(fingerprint, dataset, resolution=resolution)
        axes = len(stage.patch.topology.patch_size)
        of_pictures = is_fast and has_pictures(dataset, fingerprint)
        whole_case = of_pictures and not has_instances(dataset)
        if of_pictures:
            stage = picture_stage(stage, dataset)
        is_coarser = (
            limited := limit_stage(stage, size=size, num_axes=axes, whole_case=whole_case)
        ).grid.spacing != stage.grid.spacing
        stage, grid = limited, limited.grid
        network, patch_size = planned_network(kind, stage.patch)
        flips = mirror_axes(
            dataset,
            axis_order=grid.axis_order,
            num_patch_axes=axes,
            orientation=fingerprint.orientation,
        )
        plan = Plan(
            recipe="",
            dataset=dataset,
            num_axes=3 if fingerprint.num_axes == 3 else 2,
            preprocessing=PreprocessingSpec(
                orientation=fingerprint.orientation,
                axis_order=grid.axis_order,
                normalizations=nnunet_normalizations(dataset, fingerprint),
                spacing=_target_spacing(grid, fingerprint, num_patch_axes=axes, is_coarser=is_coarser),
            ),
            sampling=SamplingSpec(patch_size=patch_size, batch_size=stage.patch.batch_size),
            augmentation=augmentation(patch_size, mirror_axes=flips),
            network=limit_network(network, size=size),
            training=limit_training(
                training.model_copy(update={"loss": LossSpec(dice_over_batch=batch_dice)}), size=size
            ),
            inference=InferenceSpec(mirror_axes=flips),
            cascade=CascadeSpec() if resolution == "cascade" else None,
        )
        return plan_pictures(plan, size=size) if of_pictures else plan

    return make


def _fast(kind: PlannedKind, description: str) -> Recipe:
    """Return the recipe of a network for trainings of minutes."""
    plan_usually = _planned(kind, training=_FAST_TRAINING, augmentation=fast_augmentation, is_fast=True)

    def make(fingerprint: Fingerprint, dataset: DatasetSpec, size: PlanSize) -> Plan:
        if has_pictures(dataset, fingerprint):
            return plan_usually(fingerprint, dataset, size)
        return mirror_by_likeness(plan_usually(fingerprint, dataset, size), fingerprint.mirror_likeness)

    return Recipe(description, make, is_fast=True)


def _choose_stage(
    fingerprint: Fingerprint, dataset: DatasetSpec, *, resolution: _Resolution
) -> tuple[Stage, bool]:
    """Return the stage of a resolution.

    Returns:
        Grid and patch of the resolution, and whether nnU-Net computes the Dice loss over the whole batch.

    Raises:
        InputError: The data set has no such resolution.
    """
    num_outputs = len(dataset.labels)
    if resolution == "2d" or fingerprint.num_axes == 2:
        if resolution in ("low", "cascade"):
            raise InputError(
                f"{dataset.name}: expected images of 3 axes for a low resolution, got 2. Choose a recipe without it."
            )
        grid = choose_grid(fingerprint)
        patch = choose_patch(
            grid.spacing[1:], grid.median_shape[1:], num_outputs=num_outputs, num_voxels=grid.num_voxels
        )
        return Stage(grid, patch), True
    stages = choose_stages(fingerprint, num_outputs=num_outputs)
    if resolution == "full":
        return stages.full, stages.low is not None
    if stages.low is None:
        size = stages.full.patch.topology.patch_size
        raise InputError(
            f"{dataset.name} needs no low resolution: at full resolution, a patch of {size} voxels covers enough of "
            f"the median case of {tuple(round(voxels) for voxels in stages.full.grid.median_shape)}. Choose a recipe "
            f"without it."
        )
    return (stages.full, True) if resolution == "cascade" else (stages.low, False)


def _target_spacing(
    grid: TargetGrid, fingerprint: Fingerprint, *, num_patch_axes: int, is_coarser: bool
) -> tuple[float | None, float, float] | None:
    """Return the target spacing in mm along z, y, x.

    It is in-plane only for 2D networks (z is `None`), and `None` for images without spacing.
    """
    if (
        not is_coarser
        and fingerprint.num_axes == 2
        and all(case.spacing[1:] == (1.0, 1.0) for case in fingerprint.cases)
    ):
        return None
    return (None if num_patch_axes == 2 else grid.spacing[0], grid.spacing[1], grid.spacing[2])


def _msvm_unet(fingerprint: Fingerprint, dataset: DatasetSpec, size: PlanSize) -> Plan:
    """Return a plan with MSVM-UNet's published training.

    Whole slices are resized to 224x224. The optimizer is AdamW with a cosine schedule. Source: Chen et al. 2024,
    arXiv:2408.13735, section IV.
    """
    grid = choose_grid(fingerprint)
    flips = mirror_axes(
        dataset, axis_order=grid.axis_order, num_patch_axes=2, orientation=fingerprint.orientation
    )
    num_slices = sum(case.source_shape[grid.axis_order[0]] for case in fingerprint.cases)
    slice_size, batch_size = limit_slices(_SLICE_SIZE, max(2, min(32, num_slices // 4)), size=size)
    is_ct = any(name.casefold() == "ct" for name in dataset.channel_names)
    return Plan(
        recipe="",
        dataset=dataset,
        num_axes=3 if fingerprint.num_axes == 3 else 2,
        preprocessing=PreprocessingSpec(
            orientation=fingerprint.orientation,
            axis_order=grid.axis_order,
            crop_to_nonzero=False,
            normalizations=slice_normalizations(dataset, fingerprint),
            slice_size=slice_size,
            label_order=0,
        ),
        sampling=SamplingSpec(patch_size=slice_size, batch_size=batch_size, order="every-slice"),
        augmentation=slice_augmentation(mirror_axes=flips),
        network=limit_network(MSVMUNetSpec(), size=size),
        training=limit_training(
            TrainingSpec(
                epochs=300,
                iterations_per_epoch=None,
                optimizer=AdamWSpec(lr=5e-4, weight_decay=1e-3 if is_ct else 1e-4),
                schedule=ScheduleSpec(kind="cosine", final_lr=1e-6),
                loss=LossSpec(
                    dice_weight=0.6, cross_entropy_weight=0.4, dice_background=True, dice_squared=True
                ),
                gradient_clip=None,
            ),
            size=size,
        ),
        inference=InferenceSpec(mode="slices", window_batch=8, mirror_axes=flips),
    )


def _msvm_unet_tuned(fingerprint: Fingerprint, dataset: DatasetSpec, size: PlanSize) -> Plan:
    """Return a plan of MSVM-UNet trained in nnU-Net's way.

    Whole slices are resized to 256x256. Normalization, augmentation and loss are nnU-Net's, with deep supervision,
    AdamW and EMA weights. Colour pictures are planned by their own rules.
    """
    plan = _msvm_unet(fingerprint, dataset, size)
    flips = plan.inference.mirror_axes
    slice_size, batch_size = limit_slices(
        _TUNED_SLICE_SIZE, max(2, min(16, plan.sampling.batch_size)), size=size
    )
    training = TrainingSpec(
        epochs=300,
        iterations_per_epoch=None,
        optimizer=AdamWSpec(lr=5e-4, weight_decay=0.05),
        schedule=ScheduleSpec(kind="cosine", final_lr=1e-6, warmup_fraction=0.03),
        ema_decay=0.999,
    )
    plan = plan.model_copy(
        update={
            "preprocessing": plan.preprocessing.model_copy(
                update={
                    "normalizations": nnunet_normalizations(dataset, fingerprint),
                    "slice_size": slice_size,
                    "label_order": 1,
                }
            ),
            "sampling": plan.sampling.model_copy(update={"patch_size": slice_size, "batch_size": batch_size}),
            "augmentation": tuned_slice_augmentation(slice_size, mirror_axes=flips),
            "network": limit_network(MSVMUNetSpec(deep_supervision=True), size=size),
            "training": limit_training(training, size=size),
        }
    )
    if has_pictures(dataset, fingerprint):
        return plan_pictures(plan, size=size)
    return mirror_by_likeness(plan, fingerprint.mirror_likeness)


RECIPES: dict[str, Recipe] = {
    "xlstm-unet": Recipe(
        "xLSTM-UNet (Enc) on planned patches, 3D or 2D like the images", _planned("xlstm-unet")
    ),
    "xlstm-unet-2d": Recipe(
        "xLSTM-UNet (Enc) on planned patches of slices", _planned("xlstm-unet", resolution="2d")
    ),
    "xlstm-unet-low": Recipe(
        "xLSTM-UNet (Enc) at low resolution, for volumes much larger than a patch",
        _planned("xlstm-unet", resolution="low"),
    ),
    "xlstm-unet-cascade": Recipe(
        "xLSTM-UNet (Enc) at full resolution, with the labels of a low-resolution first stage",
        _planned("xlstm-unet", resolution="cascade"),
    ),
    "xlstm-unet-fast": _fast(
        "xlstm-unet",
        "xLSTM-UNet (Enc) for trainings of minutes (--max-minutes): AdamW, EMA weights, more warps",
    ),
    "msvm-unet": Recipe("MSVM-UNet on whole slices resized to 224x224", _msvm_unet),
    "msvm-unet-tuned": Recipe(
        "MSVM-UNet on whole slices, trained in nnU-Net's way: deep supervision, AdamW, EMA weights",
        _msvm_unet_tuned,
    ),
    "residual-unet": Recipe("nnU-Net's residual-encoder U-Net on planned patches", _planned("residual-unet")),
    "residual-unet-low": Recipe(
        "nnU-Net's residual-encoder U-Net at low resolution", _planned("residual-unet", resolution="low")
    ),
    "residual-unet-cascade": Recipe(
        "nnU-Net's residual-encoder U-Net at full resolution, with the labels of a low-resolution first stage",
        _planned("residual-unet", resolution="cascade"),
    ),
    "plain-unet": Recipe("nnU-Net's plain U-Net on planned patches", _planned("plain-unet")),
    "plain-unet-2d": Recipe(
        "nnU-Net's plain U-Net on planned patches of slices", _planned("plain-unet", resolution="2d")
    ),
    "plain-unet-low": Recipe(
        "nnU-Net's plain U-Net at low resolution", _planned("plain-unet", resolution="low")
    ),
    "plain-unet-cascade": Recipe(
        "nnU-Net's plain U-Net at full resolution, with the labels of a low-resolution first stage",
        _planned("plain-unet", resolution="cascade"),
    ),
    "plain-unet-fast": _fast(
        "plain-unet", "nnU-Net's plain U-Net for trainings of minutes, like xlstm-unet-fast"
    ),
    "dynunet": Recipe("MONAI's DynUNet on planned patches", _planned("dynunet")),
    "segresnet": Recipe(
        "MONAI's SegResNet on planned patches, AdamW", _planned("segresnet", training=_SLOW_TRAINING)
    ),
    "unetr": Recipe("MONAI's UNETR on planned patches, AdamW", _planned("unetr", training=_SLOW_TRAINING)),
    "swin-unetr": Recipe(
        "MONAI's SwinUNETR on planned patches, AdamW", _planned("swin-unetr", training=_SLOW_TRAINING)
    ),
}
"""Recipes by name, as in `--recipe`."""
