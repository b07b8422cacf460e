"""Losses between a network's outputs and label maps.

Source: Dice with cross-entropy as in nnU-Net (Isensee et al. 2021) and, with squares and background, as in
MSVM-UNet (Chen et al. 2024, arXiv:2408.13735); `LossSpec` holds what differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.specs import DatasetSpec, LossSpec

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


def segmentation_loss(
    outputs: Sequence[Logits], label_map: Int[Tensor, "batch *axes"], *, spec: LossSpec, dataset: DatasetSpec
) -> Float[Tensor, ""]:
    """Return the loss over all outputs of a network.

    Args:
        outputs: Logits, the highest resolution first; more than one under deep supervision, where each counts
            half as much as the one before and the coarsest not at all.
        label_map: Integer labels at the highest resolution.
        spec: Weights and form of the loss.
        dataset: Which values make up which output.
    """
    weights = [0.5**level for level in range(len(outputs))]
    if len(weights) > 1:
        weights[-1] = 0.0
    total = sum(weights)
    loss = torch.zeros((), device=label_map.device)
    for weight, logits in zip(weights, outputs, strict=True):
        if weight:
            targets = encode_targets(_resize(label_map, logits.shape[2:]), dataset=dataset)
            loss = loss + weight / total * _single_loss(
                logits.float(), targets, spec, regions=dataset.has_regions
            )
    return loss


def _resize(label_map: Tensor, size: Sequence[int]) -> Tensor:
    """Take the nearest label of a coarser grid."""
    if label_map.shape[1:] == tuple(size):
        return label_map
    return F.interpolate(label_map.unsqueeze(1).float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        label_map.dtype
    )


def _single_loss(logits: Logits, targets: Targets, spec: LossSpec, *, regions: bool) -> Tensor:
    """Return the loss of one output."""
    loss = torch.zeros((), device=logits.device)
    if spec.dice_weight:
        probabilities = logits.sigmoid() if regions else logits.softmax(1)
        loss = loss + spec.dice_weight * dice_loss(probabilities, targets, spec, regions=regions)
    if spec.cross_entropy_weight:
        loss = loss + spec.cross_entropy_weight * _cross_entropy(logits, targets, regions=regions)
    return loss


def dice_loss(
    probabilities: Float[Tensor, "batch output *axes"], targets: Targets, spec: LossSpec, *, regions: bool
) -> Float[Tensor, ""]:
    """Return one minus the soft Dice coefficient, averaged over outputs (and patches, unless over the batch).

    Args:
        probabilities: Of each output.
        targets: Masks of the same shape.
        spec: Form of the denominator, smoothing, background.
        regions: The outputs are regions: there is no background among them.
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
    return 1 - ((2 * overlap + spec.dice_smooth) / (size + spec.dice_smooth).clamp_min(1e-8)).mean()


def _cross_entropy(logits: Logits, targets: Targets, *, regions: bool) -> Tensor:
    """Return the mean cross-entropy over the voxels that count; binary over regions."""
    if regions:
        losses = F.binary_cross_entropy_with_logits(logits, targets.masks, reduction="none").mean(
            1, keepdim=True
        )
    else:
        losses = F.cross_entropy(logits, targets.masks.argmax(1), reduction="none").unsqueeze(1)
    if targets.valid is None:
        return losses.mean()
    return (losses * targets.valid).sum() / targets.valid.sum().clamp_min(1)
