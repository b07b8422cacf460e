"""The recipes: functions from what was measured to a plan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scanseg.errors import InputError, UsageError
from scanseg.planning.augmentations import (
    fast_augmentation,
    mirror_axes,
    nnunet_augmentation,
    slice_augmentation,
)
from scanseg.planning.network_choice import PlannedKind, planned_network
from scanseg.planning.normalizations import nnunet_normalizations, slice_normalizations
from scanseg.planning.patches import choose_patch
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
    PreprocessingSpec,
    SamplingSpec,
    ScheduleSpec,
    TrainingSpec,
    Transform,
)

_Resolution = Literal["full", "2d", "low", "cascade"]

_SLICE_SIZE = (224, 224)
_USUAL_TRAINING = TrainingSpec()
_SLOW_TRAINING = TrainingSpec(optimizer=AdamWSpec(lr=1e-4, weight_decay=1e-5))
"""Attention and nnU-Net's learning rate of 0.01 do not go together; SegResNet's authors use Adam at this rate too."""

_FAST_TRAINING = TrainingSpec(epochs=40, optimizer=AdamWSpec(lr=1e-3), ema_decay=0.995)
"""Comes in thousands of steps as far as nnU-Net's in ten thousands; see docs/results/hippocampus-100s.md."""


@dataclass(frozen=True)
class Recipe:
    """A way from a fingerprint to a plan."""

    description: str
    make: Callable[[Fingerprint, DatasetSpec], Plan]


def plan_recipe(
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


def _planned(
    kind: PlannedKind,
    *,
    resolution: _Resolution = "full",
    training: TrainingSpec = _USUAL_TRAINING,
    augmentation: Callable[..., tuple[Transform, ...]] = nnunet_augmentation,
) -> Callable[[Fingerprint, DatasetSpec], Plan]:
    """Return a recipe whose patches are planned as nnU-Net does, with any network but MSVM-UNet."""

    def make(fingerprint: Fingerprint, dataset: DatasetSpec) -> Plan:
        stage, batch_dice = _choose_stage(fingerprint, dataset, resolution=resolution)
        grid, axes = stage.grid, len(stage.patch.topology.patch_size)
        network, size = planned_network(kind, stage.patch)
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
            sampling=SamplingSpec(patch_size=size, batch_size=stage.patch.batch_size),
            augmentation=augmentation(size, mirror_axes=flips),
            network=network,
            training=training.model_copy(update={"loss": LossSpec(dice_over_batch=batch_dice)}),
            inference=InferenceSpec(mirror_axes=flips),
            cascade=CascadeSpec() if resolution == "cascade" else None,
        )

    return make


def _choose_stage(
    fingerprint: Fingerprint, dataset: DatasetSpec, *, resolution: _Resolution
) -> tuple[Stage, bool]:
    """Return the grid and the patch of a resolution, and whether nnU-Net sums the Dice loss over the batch there.

    Raises:
        InputError: The data set has no such resolution.
    """
    num_outputs = len(dataset.labels)
    if resolution == "2d" or fingerprint.num_axes == 2:
        if resolution in ("low", "cascade"):
            raise InputError(
                f"{dataset.name} has images of two axes; choose a recipe without a low resolution."
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
            f"{dataset.name} needs no low resolution: at full resolution a patch of {size} voxels shows enough of the "
            f"median case of {tuple(round(voxels) for voxels in stages.full.grid.median_shape)}; choose a recipe "
            f"without it."
        )
    return (stages.full, True) if resolution == "cascade" else (stages.low, False)


def _target_spacing(
    grid: TargetGrid, fingerprint: Fingerprint, *, num_patch_axes: int
) -> tuple[float | None, float, float] | None:
    """Return the spacing to resample to: in the plane only for a 2D network, none for images without spacing."""
    if fingerprint.num_axes == 2 and all(case.spacing[1:] == (1.0, 1.0) for case in fingerprint.cases):
        return None
    return (None if num_patch_axes == 2 else grid.spacing[0], grid.spacing[1], grid.spacing[2])


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
        "xLSTM-UNet (Enc) on planned patches of slices", _planned("xlstm-unet", resolution="2d")
    ),
    "xlstm-unet-low": Recipe(
        "xLSTM-UNet (Enc) at a low resolution, for volumes of which a patch shows little",
        _planned("xlstm-unet", resolution="low"),
    ),
    "xlstm-unet-cascade": Recipe(
        "xLSTM-UNet (Enc) at full resolution, which sees what one at a low resolution predicted",
        _planned("xlstm-unet", resolution="cascade"),
    ),
    "xlstm-unet-fast": Recipe(
        "xLSTM-UNet (Enc) for a training of minutes (--max-minutes): AdamW, averaged weights, more warps",
        _planned("xlstm-unet", training=_FAST_TRAINING, augmentation=fast_augmentation),
    ),
    "msvm-unet": Recipe("MSVM-UNet on whole slices resized to 224x224", _msvm_unet),
    "residual-unet": Recipe("nnU-Net's residual-encoder U-Net on planned patches", _planned("residual-unet")),
    "residual-unet-low": Recipe(
        "nnU-Net's residual-encoder U-Net at a low resolution", _planned("residual-unet", resolution="low")
    ),
    "residual-unet-cascade": Recipe(
        "nnU-Net's residual-encoder U-Net at full resolution, which sees what one at a low resolution predicted",
        _planned("residual-unet", resolution="cascade"),
    ),
    "plain-unet": Recipe("nnU-Net's plain U-Net on planned patches", _planned("plain-unet")),
    "plain-unet-2d": Recipe(
        "nnU-Net's plain U-Net on planned patches of slices", _planned("plain-unet", resolution="2d")
    ),
    "plain-unet-low": Recipe(
        "nnU-Net's plain U-Net at a low resolution", _planned("plain-unet", resolution="low")
    ),
    "plain-unet-cascade": Recipe(
        "nnU-Net's plain U-Net at full resolution, which sees what one at a low resolution predicted",
        _planned("plain-unet", resolution="cascade"),
    ),
    "plain-unet-fast": Recipe(
        "nnU-Net's plain U-Net for a training of minutes, as xlstm-unet-fast",
        _planned("plain-unet", training=_FAST_TRAINING, augmentation=fast_augmentation),
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
"""Name to recipe; the names that `--recipe` takes."""
