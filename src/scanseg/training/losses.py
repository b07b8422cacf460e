"""Losses between a network's outputs and label maps.

Source: Dice with cross-entropy as in nnU-Net (Isensee et al. 2021) and, with squares and background, as in
MSVM-UNet (Chen et al. 2024, arXiv:2408.13735); `LossSpec` holds what differs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.specs import BACKGROUND, DatasetSpec, LossSpec

Logits = Float[Tensor, "batch output *axes"]


@dataclass(frozen=True, eq=False)
class Targets:
    """What the outputs should be."""

    masks: Float[Tensor, "batch output *axes"]
    """1 where an output should fire, else 0."""
    valid: Float[Tensor, "batch 1 *axes"] | None
    """0 where the ignore label lies; None: everywhere 1."""


def encode_targets(label_map: Int[Tensor, "batch *axes"], *, dataset: DatasetSpec) -> Targets:
    """Turn a label map into one mask for each output: a class (with background), or a region."""
    groups = [(0,), *dataset.foreground.values()]
    if dataset.has_regions:
        groups = groups[1:]
    masks = torch.stack([_is_one_of(label_map, group) for group in groups], dim=1)
    valid = None
    if dataset.ignore_label is not None:
        valid = (label_map != dataset.ignore_label).unsqueeze(1).float()
    return Targets(masks.float(), valid)


def _is_one_of(label_map: Tensor, values: Sequence[int]) -> Tensor:
    """Compare with each value; `torch.isin` would move the values to the device, which a CUDA graph cannot hold."""
    mask = label_map == values[0]
    for value in values[1:]:
        mask = mask | (label_map == value)
    return mask


Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes that share a batch."""


def _alone(tensor: Tensor) -> Tensor:
    """Return the sum over one process."""
    return tensor


def segmentation_loss(
    outputs: Sequence[Logits],
    label_map: Int[Tensor, "batch *axes"],
    *,
    spec: LossSpec,
    dataset: DatasetSpec,
    total: Total = _alone,
) -> Float[Tensor, ""]:
    """Return the loss over all outputs of a network.

    Args:
        outputs: Logits, the highest resolution first; more than one under deep supervision, where each counts
            half as much as the one before and the coarsest not at all.
        label_map: Integer labels at the highest resolution.
        spec: Weights and form of the loss.
        dataset: Which values make up which output.
        total: Sums over the processes that share the batch, so that what is summed over the batch is so over all of
            it. The mean of the processes' losses is that of the whole batch.
    """
    weights = [0.5**level for level in range(len(outputs))]
    if len(weights) > 1:
        weights[-1] = 0.0
    whole = sum(weights)
    names = list(dataset.foreground) if dataset.has_regions else [BACKGROUND, *dataset.foreground]
    label_weights = [spec.label_weights.get(name, 1.0) for name in names]
    loss = torch.zeros((), device=label_map.device)
    for weight, logits in zip(weights, outputs, strict=True):
        if weight:
            targets = encode_targets(_resize(label_map, logits.shape[2:]), dataset=dataset)
            loss = loss + weight / whole * _single_loss(
                logits.float(), targets, spec, label_weights, regions=dataset.has_regions, total=total
            )
    return loss


def _resize(label_map: Tensor, size: Sequence[int]) -> Tensor:
    """Take the nearest label of a coarser grid."""
    if label_map.shape[1:] == tuple(size):
        return label_map
    return F.interpolate(label_map.unsqueeze(1).float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        label_map.dtype
    )


def _single_loss(
    logits: Logits,
    targets: Targets,
    spec: LossSpec,
    label_weights: Sequence[float],
    *,
    regions: bool,
    total: Total,
) -> Tensor:
    """Return the loss of one output."""
    loss = torch.zeros((), device=logits.device)
    if spec.dice_weight:
        probabilities = logits.sigmoid() if regions else logits.softmax(1)
        loss = loss + spec.dice_weight * dice_loss(probabilities, targets, spec, regions=regions, total=total)
    if spec.cross_entropy_weight:
        loss = loss + spec.cross_entropy_weight * _cross_entropy(
            logits, targets, label_weights, regions=regions, total=total
        )
    return loss


def dice_loss(
    probabilities: Float[Tensor, "batch output *axes"],
    targets: Targets,
    spec: LossSpec,
    *,
    regions: bool,
    total: Total = _alone,
) -> Float[Tensor, ""]:
    """Return one minus the soft Dice coefficient, averaged over outputs (and patches, unless over the batch).

    Args:
        probabilities: Of each output.
        targets: Masks of the same shape.
        spec: Form of the denominator, smoothing, background.
        regions: The outputs are regions: there is no background among them.
        total: Sums over the processes that share the batch.
    """
    masks = targets.masks
    if not spec.dice_background and not regions:
        probabilities, masks = probabilities[:, 1:], masks[:, 1:]
    if targets.valid is not None:
        probabilities, masks = probabilities * targets.valid, masks * targets.valid
    axes = tuple(range(2, masks.ndim))
    if spec.dice_over_batch:
        axes = (0, *axes)
    overlap = (probabilities * masks).sum(axes)
    predicted = (probabilities.square() if spec.dice_squared else probabilities).sum(axes)
    size = predicted + masks.sum(axes)
    if spec.dice_over_batch:
        overlap, size = total(overlap), total(size)
    return 1 - ((2 * overlap + spec.dice_smooth) / (size + spec.dice_smooth).clamp_min(1e-8)).mean()


def _cross_entropy(
    logits: Logits, targets: Targets, weights: Sequence[float], *, regions: bool, total: Total
) -> Tensor:
    """Return the mean cross-entropy over the voxels that count; binary over regions.

    Args:
        logits: Of each output.
        targets: Masks of the same shape.
        weights: How much each output counts; numbers, since a CUDA graph cannot hold their copy to the device.
        regions: The outputs are regions.
        total: Sums over the processes that share the batch.
    """
    even = all(weight == weights[0] for weight in weights)
    counted = targets.valid
    if regions:
        binary = F.binary_cross_entropy_with_logits(logits, targets.masks, reduction="none")
        losses = binary.mean(1, keepdim=True) if even else _weighted(binary, weights) / sum(weights)
    else:
        losses = F.cross_entropy(logits, targets.masks.argmax(1), reduction="none").unsqueeze(1)
        if not even:
            of_voxels = _weighted(targets.masks, weights)
            counted = of_voxels if counted is None else counted * of_voxels
    if counted is None:
        return losses.mean()
    return total((losses * counted).sum()) / total(counted.sum()).clamp_min(1e-8)


def _weighted(maps: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of the maps of all outputs, (batch, 1, *axes)."""
    return sum(
        (weight * channel for weight, channel in zip(weights, maps.split(1, dim=1), strict=True)),
        start=torch.zeros((), device=maps.device),
    )
