"""The plan: every decision between a raw data set and a scored segmentation."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scanseg.messages import counted
from scanseg.specs.base import Document
from scanseg.specs.plan.augmentation import AffineTransform, MirrorTransform, Transform
from scanseg.specs.plan.dataset import BACKGROUND, DatasetSpec
from scanseg.specs.plan.network import NetworkSpec
from scanseg.specs.plan.preprocessing import PreprocessingSpec

HIGHEST_CASCADE_LABEL = 127
"""Label maps of two stages lie in one array of 16 bits."""

Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class SamplingSpec(Document):
    """How training patches are drawn."""

    patch_size: tuple[PositiveInt, ...] = Field(min_length=2, max_length=3)
    """Voxels along z, y, x; along y, x for a 2D network."""
    batch_size: PositiveInt
    """Patches of one step, over all processes and parts of it."""
    order: Literal["random-patches", "every-slice"] = "random-patches"
    """Patches at random positions, or every slice of every training case once in an epoch."""
    foreground_fraction: Fraction = 0.33
    """Part of a batch whose patches are centred on a random foreground voxel (`random-patches`)."""
    label_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """How often a label is chosen for such a voxel, beside 1 for each that is not named (`random-patches`)."""


class SGDSpec(Document):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 1e-2
    momentum: Fraction = 0.99
    weight_decay: NonNegativeFloat = 3e-5


class AdamWSpec(Document):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 5e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 1e-3
    decay_all: bool = False
    """Decay norms, biases, decay rates and skips of the scan too (as published)."""


class ScheduleSpec(Document):
    """Learning rate over the training."""

    kind: Literal["poly", "cosine", "constant"] = "poly"
    power: PositiveFloat = 0.9
    """Exponent of `poly`."""
    final_lr: NonNegativeFloat = 0.0
    """Learning rate at the end."""
    warmup_fraction: Fraction = 0.0
    """Part of the training over which the rate rises linearly from 0."""


class LossSpec(Document):
    """Weighted sum of Dice loss and cross-entropy (binary cross-entropy for regions)."""

    dice_weight: NonNegativeFloat = 1.0
    cross_entropy_weight: NonNegativeFloat = 1.0
    dice_background: bool = False
    """Count the background class in the Dice loss."""
    dice_over_batch: bool = True
    """Sum intersections and sizes over the batch before dividing."""
    dice_squared: bool = False
    """Squares in the denominator."""
    dice_smooth: NonNegativeFloat = 1e-5
    label_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Weight of a label or region (also `background`) in the cross-entropy, beside 1 for each that is not named."""


class EarlyStopSpec(Document):
    """End a training that no longer gets better."""

    measure: Literal["loss", "validation-dice"] = "validation-dice"
    """Mean loss of an epoch, or mean Dice of its validation patches."""
    patience_epochs: PositiveInt
    """Epochs without improvement after which the training ends, at the next measurement."""
    least_improvement: NonNegativeFloat = 0.0
    """What counts as an improvement: more than this."""


class TrainingSpec(Document):
    """How the network is fitted."""

    epochs: PositiveInt = 1000
    iterations_per_epoch: PositiveInt | None = 250
    """None: as many as `every-slice` needs."""
    max_minutes: PositiveFloat | None = None
    """End after this time; the schedule then follows the clock, if the clock is ahead of the epochs."""
    optimizer: Annotated[SGDSpec | AdamWSpec, Field(discriminator="kind")] = SGDSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    loss: LossSpec = LossSpec()
    frozen_encoder_epochs: NonNegativeInt = 0
    """Epochs in which the encoder stays as it began, for encoders that come with weights."""
    gradient_clip: PositiveFloat | None = 12.0
    """Largest norm of the gradient; None: no bound."""
    accumulation: PositiveInt = 1
    """Parts of a batch that pass the network one after the other, for one step: less memory, the same batch."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and export the running average of the weights (EMA), which keeps this part of itself at a step."""
    early_stop: EarlyStopSpec | None = None
    export: Literal["last", "best"] = "last"
    """Weights that prediction uses: those at the end, or those with the best Dice on validation patches."""
    score_both: bool = False
    """Score whole validation cases with the last and with the best weights, not with the exported ones alone."""
    mirror_validation: bool = False
    """Average over the flips of `inference.mirror_axes` where whole validation cases are scored, as nnU-Net does."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU that has it, else float32."""
    allow_tf32: bool = True
    """Let a GPU round float32 products to TF32."""
    cuda_graph: bool = True
    """Replay forward and backward of a step as one CUDA graph, where the device is a GPU with CUDA."""
    resident: Literal["auto", "device", "host", "disk"] = "auto"
    """Where the cases are held; auto: the first of these where they take at most half of the free memory."""
    checkpoint_seconds: NonNegativeFloat = 30.0
    """Least time between checkpoints, which are written after epochs; 0: after every epoch."""
    validate_every: PositiveInt = 5
    """Epochs between scores on patches of the validation cases."""
    validation_batches: PositiveInt = 20
    """Batches of such a score; of slices no more than hold all of them once."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class InferenceSpec(Document):
    """How a case is segmented."""

    mode: Literal["windows", "slices"] = "windows"
    """Overlapping windows blended by a Gaussian, or whole slices resized to the patch."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Part of a window that the next one covers again."""
    window_batch: PositiveInt = 4
    """Windows, or slices, in one pass of the network."""
    mirror_axes: tuple[int, ...] = ()
    """Patch axes over whose flips predictions are averaged when mirroring is asked for."""
    slice_restoring: Literal["logits", "labels"] = "logits"
    """What is resized back to the source grid in mode `slices`; `labels` as published."""


class CascadeSpec(Document):
    """A second stage: labels of a first one, at a lower resolution, are further channels, one for each (one-hot)."""

    previous: str | None = None
    """Folder of the `scanseg crossval` of the first stage, whose folds predicted each training case unseen."""
    change_probability: Fraction = 0.4
    """How often a label is grown, shrunk, opened or closed in a training patch."""
    change_radius: PositiveInt = 8
    """Largest radius of such a change, in voxels."""
    drop_probability: Fraction = 0.2
    """How often one connected part of a label is taken out of a training patch."""
    largest_dropped: Fraction = 0.15
    """Part of the patch up to which a connected part is taken out."""


class Plan(Document):
    """All decisions of one training, and all that prediction needs beside the weights."""

    format: Literal[1] = 1
    recipe: str
    """Name of the recipe that made the plan."""
    dataset: DatasetSpec
    dataset_path: str | None = None
    """Folder of the raw data set, as it was when planned; used by `train PLAN` to make the store."""
    num_axes: Literal[2, 3]
    """Spatial axes of the source images."""
    spacing_range: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Smallest and largest spacing of the data set's volumes (mm along z, y, x), beyond which a prediction warns."""
    preprocessing: PreprocessingSpec
    sampling: SamplingSpec
    augmentation: tuple[Transform, ...]
    network: NetworkSpec
    training: TrainingSpec = TrainingSpec()
    inference: InferenceSpec = InferenceSpec()
    cascade: CascadeSpec | None = None
    """How the network sees what an earlier stage predicted; None: there is no earlier stage."""

    @property
    def num_inputs(self) -> int:
        """Channels that the network sees: those of the images, and one for each label of an earlier stage."""
        return self.dataset.num_channels + (len(self.dataset.label_values) if self.cascade else 0)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        faults = [
            *self._size_faults(),
            *self._slice_faults(),
            *self._axis_faults(),
            *self._label_faults(),
            *self._cascade_faults(),
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _size_faults(self) -> Iterator[str]:
        """Say what does not fit the network or the images."""
        patch, axes = self.sampling.patch_size, self.network.num_axes
        if len(patch) != axes:
            yield f"patch_size {patch} has {counted(len(patch), 'axis', 'axes')}, the network {axes}"
        if len(self.preprocessing.normalizations) != self.dataset.num_channels:
            yield (
                f"{counted(len(self.preprocessing.normalizations), 'normalization')} for "
                f"{counted(self.dataset.num_channels, 'channel')}"
            )
        if self.sampling.order == "random-patches" and self.training.iterations_per_epoch is None:
            yield "sampling order random-patches needs training.iterations_per_epoch"
        if self.sampling.batch_size % self.training.accumulation:
            yield (
                f"batch_size {self.sampling.batch_size} is not divisible into training.accumulation "
                f"{self.training.accumulation} parts"
            )

    def _slice_faults(self) -> Iterator[str]:
        """Say what whole slices need and do not have."""
        slice_size, patch = self.preprocessing.slice_size, self.sampling.patch_size
        if slice_size is not None and slice_size != patch:
            yield f"slice_size {slice_size} and patch_size {patch} must be equal"
        if slice_size is None and self.sampling.order == "every-slice":
            yield "sampling order every-slice needs preprocessing.slice_size"
        if self.sampling.order == "every-slice" and self.sampling.label_weights:
            yield "sampling.label_weights choose patches; every-slice takes every slice alike"
        if slice_size is None and self.inference.mode == "slices":
            yield "inference mode slices needs preprocessing.slice_size; else choose mode windows"
        if self.inference.mode != "slices" and self.inference.slice_restoring == "labels":
            yield (
                f"inference slice_restoring labels needs mode slices, not {self.inference.mode}; "
                f"else choose slice_restoring logits"
            )

    def _cascade_faults(self) -> Iterator[str]:
        """Say why there can be no earlier stage."""
        if self.cascade is None:
            return
        if len(self.sampling.patch_size) != 3 or self.preprocessing.slice_size is not None:
            yield "cascade is for patches of three axes"
        if max(self.dataset.label_values) > HIGHEST_CASCADE_LABEL:
            yield f"cascade is for label values up to {HIGHEST_CASCADE_LABEL}, not {max(self.dataset.label_values)}"

    def _label_faults(self) -> Iterator[str]:
        """Say which weights are of labels that are not there, and which leave nothing."""
        loss = self.training.loss
        if not loss.dice_weight and not loss.cross_entropy_weight:
            yield "training.loss dice_weight and cross_entropy_weight are both 0; leave one above 0"
        foreground = set(self.dataset.foreground)
        classes = foreground if self.dataset.has_regions else foreground | {BACKGROUND}
        for name, weights, known in (
            ("sampling.label_weights", self.sampling.label_weights, foreground),
            ("training.loss.label_weights", self.training.loss.label_weights, classes),
        ):
            if not set(weights) <= known:
                yield f"{name} names {sorted(set(weights) - known)}; the labels are {sorted(known)}"
            elif set(weights) == known and not any(weights.values()):
                yield f"{name} is 0 for every label; leave one above 0"

    def _axis_faults(self) -> Iterator[str]:
        """Say which axes the patch does not have, and which transforms stand in the wrong place."""
        axes = range(len(self.sampling.patch_size))
        flips = {"inference.mirror_axes": self.inference.mirror_axes}
        if self.training.mirror_validation and not self.inference.mirror_axes:
            yield "training.mirror_validation is true, but inference.mirror_axes names no axes to mirror"
        for number, transform in enumerate(self.augmentation):
            if isinstance(transform, MirrorTransform):
                flips[f"augmentation.{number}.axes"] = transform.axes
            if isinstance(transform, AffineTransform) and number > 0:
                yield f"augmentation.{number} is affine; there may be one affine transform, and it comes first"
        for name, flipped in flips.items():
            if not set(flipped) <= set(axes):
                yield f"{name} {flipped} must be among the axes {tuple(axes)} of the patch"
