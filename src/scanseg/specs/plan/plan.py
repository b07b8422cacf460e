"""The plan: all decisions of one training."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from scanseg.sizes import MOST_VOXELS
from scanseg.specs.base import Count, Document, LeftOutDefaults, RenamedFields, Size, Step
from scanseg.specs.plan.augmentation import AffineTransform, ColourTransform, MirrorTransform, Transform
from scanseg.specs.plan.dataset import BACKGROUND, DatasetSpec
from scanseg.specs.plan.network import NetworkSpec
from scanseg.specs.plan.preprocessing import PreprocessingSpec

HIGHEST_CASCADE_LABEL = 127
"""Highest label value of a data set with a cascade.

The label maps of both stages share one array of 16 bits.
"""

Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveStep = Annotated[int, Field(gt=0, le=10**12)]


class SamplingSpec(Document):
    """Sampling of training patches."""

    patch_size: tuple[Size, ...] = Field(min_length=2, max_length=3)
    """Size of a patch in voxels along z, y, x. For a 2D network: along y, x."""
    batch_size: Size
    """Patches of one optimizer step, over all processes and accumulation steps."""
    order: Literal["random-patches", "every-slice"] = "random-patches"
    """`random-patches`: random positions. `every-slice`: every slice of every training case once per epoch."""
    foreground_fraction: Fraction = 0.33
    """Fraction of a batch whose patches are centred on a random foreground voxel (`random-patches`)."""
    label_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Weight of each label when the label of such a voxel is drawn (`random-patches`). Defaults to 1 per label."""


class SGDSpec(Document):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    """Kind of the optimizer."""
    lr: PositiveFloat = 1e-2
    """Initial learning rate."""
    momentum: Fraction = 0.99
    """Nesterov momentum."""
    weight_decay: NonNegativeFloat = 3e-5
    """Factor of the weight decay."""


class AdamWSpec(Document):
    """AdamW: Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    """Kind of the optimizer."""
    lr: PositiveFloat = 5e-4
    """Initial learning rate."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running means of gradients and of squared gradients."""
    weight_decay: NonNegativeFloat = 1e-3
    """Factor of the weight decay."""
    decay_all: bool = False
    """Apply weight decay also to norms, biases, and the decay rates and skips of scans (as published)."""


class ScheduleSpec(Document):
    """Schedule of the learning rate."""

    kind: Literal["poly", "cosine", "constant"] = "poly"
    """Shape of the schedule: a power of the remaining fraction, half a cosine, or constant."""
    power: PositiveFloat = 0.9
    """Exponent of `poly`."""
    final_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of the training."""
    warmup_fraction: Fraction = 0.0
    """Fraction of the training in which the learning rate rises linearly from 0."""


class LossSpec(Document):
    """Weighted sum of Dice loss and cross-entropy.

    Regions use the binary cross-entropy.
    """

    dice_weight: NonNegativeFloat = 1.0
    """Weight of the Dice loss."""
    cross_entropy_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy."""
    dice_background: bool = False
    """Include the background class in the Dice loss."""
    dice_over_batch: bool = True
    """Sum intersections and sizes over the batch before the division."""
    dice_squared: bool = False
    """Use squares in the denominator of the Dice loss."""
    dice_smooth: NonNegativeFloat = 1e-5
    """Constant added to numerator and denominator of the Dice loss."""
    label_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Weight of each label or region (also `background`) in the cross-entropy. Defaults to 1 per label."""


class EarlyStopSpec(Document):
    """Early stopping: end a training that no longer improves."""

    measure: Literal["loss", "validation-dice"] = "validation-dice"
    """Monitored measure: mean loss of an epoch, or mean Dice of its validation patches."""
    patience_epochs: PositiveStep
    """Epochs without improvement before the training ends, at the next measurement."""
    least_improvement: NonNegativeFloat = 0.0
    """Least difference that counts as an improvement. It must be exceeded."""


class TrainingSpec(RenamedFields):
    """Optimization, validation and export of a network."""

    epochs: PositiveStep = 1000
    """Number of epochs."""
    iterations_per_epoch: PositiveStep | None = 250
    """Optimizer steps per epoch. `None`: as many as sampling order `every-slice` needs."""
    max_minutes: PositiveFloat | None = None
    """Longest training time in minutes. `None`: no limit.

    The learning rate schedule then follows the clock if the clock is ahead of the epochs.
    """
    optimizer: Annotated[SGDSpec | AdamWSpec, Field(discriminator="kind")] = SGDSpec()
    """The optimizer."""
    schedule: ScheduleSpec = ScheduleSpec()
    """Schedule of the learning rate."""
    loss: LossSpec = LossSpec()
    """The loss."""
    frozen_encoder_epochs: Step = 0
    """First epochs in which the encoder's weights are frozen, for encoders with initial weights."""
    gradient_clip: PositiveFloat | None = 12.0
    """Largest norm of the gradient. `None`: no limit."""
    accumulation_steps: Size = 1
    """Parts of a batch that pass through the network one after the other before one optimizer step.

    More parts need less memory, for the same batch.
    """
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction of the EMA weights that is kept at each step. `None`: no EMA weights.

    With EMA weights, validation and export use them.
    """
    early_stop: EarlyStopSpec | None = None
    """Early stopping. `None`: train all epochs."""
    export: Literal["last", "best"] = "last"
    """Exported weights: `last`, or `best` (highest Dice on validation patches). Prediction uses them."""
    score_both: bool = False
    """Score whole validation cases with the last and the best weights instead of only the exported ones."""
    mirror_validation: bool = False
    """Average over flips of `inference.mirror_axes` when whole validation cases are scored, as in nnU-Net."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the computation. `auto`: bfloat16 on GPUs that support it, else float32."""
    allow_tf32: bool = True
    """Allow GPUs to round float32 products to TF32."""
    cuda_graph: bool = True
    """Replay forward and backward passes of a step as one CUDA graph, on CUDA devices."""
    case_storage: Literal["auto", "device", "host", "disk"] = "auto"
    """Storage of the cases during the training. `auto`: the first with enough memory.

    The cases may take at most half of the free memory.
    """
    checkpoint_seconds: NonNegativeFloat = 30.0
    """Least time between checkpoints in seconds. 0: after every epoch.

    Checkpoints are written after epochs.
    """
    validate_every: PositiveStep = 5
    """Number of epochs between scores on validation patches."""
    validation_batches: Size = 20
    """Batches of such a score. With `every-slice`, at most as many as contain every slice once."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random draws."""


class InferenceSpec(RenamedFields, LeftOutDefaults):
    """Prediction of a case."""

    left_out_defaults = ("mirror",)

    mode: Literal["windows", "slices"] = "windows"
    """`windows`: overlapping windows, blended by a Gaussian. `slices`: whole slices, resized to the patch size."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Fraction of a window that overlaps the next one."""
    window_batch: Size = 4
    """Number of windows or slices in one forward pass."""
    mirror_axes: tuple[int, ...] = ()
    """Axes of the patch for mirroring: predictions are averaged over their flips if mirroring is on."""
    mirror: bool = False
    """Average over flips of `mirror_axes` by default."""
    slice_resampling: Literal["logits", "labels"] = "logits"
    """Array that is resized to the source grid in mode `slices`. `labels` is as published."""


class CascadeSpec(RenamedFields):
    """Second stage of a cascade.

    The labels of the first stage, at a lower resolution, are additional channels, one per label (one-hot).
    """

    first_stage: str | None = None
    """Cross-validation folder of the first stage (`scanseg crossval`). `None`: not yet set.

    Each training case is predicted by the fold that did not train on it.
    """
    change_probability: Fraction = 0.4
    """Probability that a label of the first stage is dilated, eroded, opened or closed in a training patch."""
    change_radius: Count = 8
    """Largest radius of such a change in voxels."""
    drop_probability: Fraction = 0.2
    """Probability that one connected component of a label is removed from a training patch."""
    largest_dropped: Fraction = 0.15
    """Size of the largest removed component as a fraction of the patch."""


PlanSize = Literal["small", "medium", "full"]
"""Size of a plan."""


class Plan(LeftOutDefaults):
    """All decisions of one training.

    Prediction needs the plan and the weights only.
    """

    left_out_records = ("dataset_digest", "mirror_likeness", "size")

    format: Literal[1] = 1
    """Version of the file format."""
    recipe: str
    """Name of the recipe that made the plan."""
    size: PlanSize = "full"
    """Size of network, patches and batch. `full`: as planned by the recipe."""
    dataset: DatasetSpec
    """Description of the data set."""
    dataset_path: str | None = None
    """Folder of the raw data set at the time of planning. `train PLAN` builds the store from it."""
    dataset_digest: str | None = None
    """Checksum of the names and sizes of its files and of its `dataset.json`. `None`: an older plan without it.

    Trainings warn if the data set has changed since.
    """
    num_axes: Literal[2, 3]
    """Number of spatial axes of the source images."""
    spacing_range: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Smallest and largest spacing of the data set's volumes in mm along z, y, x. `None`: not measured.

    Prediction warns about images beyond this range.
    """
    mirror_likeness: tuple[float, float, float] | None = None
    """Soft Dice of the data set's mean label map and its mirror image along z, y, x, of the least alike label.

    `None`: not measured. The fast recipes choose mirror axes by it.
    """
    preprocessing: PreprocessingSpec
    """Preprocessing of the cases."""
    sampling: SamplingSpec
    """Sampling of training patches."""
    augmentation: tuple[Transform, ...]
    """Random transforms of training patches, in order of application."""
    network: NetworkSpec
    """Description of the network."""
    training: TrainingSpec = TrainingSpec()
    """Optimization, validation and export."""
    inference: InferenceSpec = InferenceSpec()
    """Prediction of cases."""
    cascade: CascadeSpec | None = None
    """Input from the first stage of a cascade. `None`: no cascade."""

    @property
    def num_inputs(self) -> int:
        """Input channels of the network: preprocessed channels and first-stage labels."""
        return self.preprocessing.num_channels + (len(self.dataset.label_values) if self.cascade else 0)

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
        """Yield faults of sizes that contradict the network or the images."""
        patch, axes = self.sampling.patch_size, self.network.num_axes
        if len(patch) != axes:
            yield f"sampling.patch_size: expected {axes} axes as the network, got {len(patch)}: {patch}"
        if len(self.preprocessing.normalizations) != self.dataset.num_channels:
            yield (
                f"preprocessing.normalizations: expected one per channel ({self.dataset.num_channels}), got "
                f"{len(self.preprocessing.normalizations)}"
            )
        if math.prod(patch) * self.sampling.batch_size > MOST_VOXELS:
            yield (
                f"sampling.patch_size and batch_size: expected at most {MOST_VOXELS:.2g} voxels in a batch, got "
                f"{self.sampling.batch_size} patches of {patch}"
            )
        if self.sampling.order == "random-patches" and self.training.iterations_per_epoch is None:
            yield "sampling.order random-patches needs training.iterations_per_epoch"
        if self.sampling.batch_size % self.training.accumulation_steps:
            yield (
                f"batch_size {self.sampling.batch_size} is not divisible into training.accumulation_steps "
                f"{self.training.accumulation_steps} parts"
            )

    def _slice_faults(self) -> Iterator[str]:
        """Yield faults of settings for whole slices."""
        slice_size, patch = self.preprocessing.slice_size, self.sampling.patch_size
        if slice_size is not None and slice_size != patch:
            yield f"slice_size {slice_size} and patch_size {patch} must be equal"
        if slice_size is None and self.sampling.order == "every-slice":
            yield "sampling.order every-slice needs preprocessing.slice_size"
        if self.sampling.order == "every-slice" and self.sampling.label_weights:
            yield "sampling.label_weights apply to patches, but sampling.order every-slice uses every slice once"
        if slice_size is None and self.inference.mode == "slices":
            yield "inference.mode slices needs preprocessing.slice_size. Set it, or use mode windows"
        if self.inference.mode != "slices" and self.inference.slice_resampling == "labels":
            yield (
                f"inference.slice_resampling labels needs inference.mode slices, got {self.inference.mode}. Use "
                "slice_resampling logits"
            )
        if self.preprocessing.neighbour_slices and (self.num_axes == 2 or len(patch) == 3):
            yield (
                "preprocessing.neighbour_slices: expected a 2D network and volumes, got patches of "
                f"{len(patch)} axes and images of {self.num_axes}. Set it to 0"
            )

    def _cascade_faults(self) -> Iterator[str]:
        """Yield faults that prevent a cascade."""
        if self.cascade is None:
            return
        if len(self.sampling.patch_size) != 3 or self.preprocessing.slice_size is not None:
            yield "cascade: expected patches of 3 axes without preprocessing.slice_size"
        if max(self.dataset.label_values) > HIGHEST_CASCADE_LABEL:
            highest = max(self.dataset.label_values)
            yield f"cascade: expected label values up to {HIGHEST_CASCADE_LABEL}, got {highest}"

    def _label_faults(self) -> Iterator[str]:
        """Yield faults of weights: unknown labels, and weights that are all 0."""
        loss = self.training.loss
        if not loss.dice_weight and not loss.cross_entropy_weight:
            yield "training.loss: expected dice_weight or cross_entropy_weight above 0, got 0 for both"
        foreground = set(self.dataset.foreground)
        classes = foreground if self.dataset.has_regions else foreground | {BACKGROUND}
        for name, weights, known in (
            ("sampling.label_weights", self.sampling.label_weights, foreground),
            ("training.loss.label_weights", self.training.loss.label_weights, classes),
        ):
            if not set(weights) <= known:
                yield f"{name}: expected labels of {sorted(known)}, got {sorted(set(weights) - known)}"
            elif set(weights) == known and not any(weights.values()):
                yield f"{name}: expected a weight above 0, got 0 for every label"

    def _axis_faults(self) -> Iterator[str]:
        """Yield faults of flipped axes and of the order of transforms."""
        axes = range(len(self.sampling.patch_size))
        flips = {"inference.mirror_axes": self.inference.mirror_axes}
        if self.training.mirror_validation and not self.inference.mirror_axes:
            yield "training.mirror_validation is true, but inference.mirror_axes names no axes to mirror"
        if self.inference.mirror and not self.inference.mirror_axes:
            yield "inference.mirror is true, but inference.mirror_axes names no axes to mirror"
        for number, transform in enumerate(self.augmentation):
            if isinstance(transform, MirrorTransform):
                flips[f"augmentation.{number}.axes"] = transform.axes
            if isinstance(transform, AffineTransform) and number > 0:
                yield f"augmentation.{number}: expected one affine transform at index 0, got another here"
            if isinstance(transform, ColourTransform) and self.dataset.num_channels != len("RGB"):
                yield f"augmentation.{number}: colour needs images of 3 channels, got {self.dataset.num_channels}"
        for name, flipped in flips.items():
            if not set(flipped) <= set(axes):
                yield f"{name}: expected axes of {tuple(axes)}, got {flipped}"
