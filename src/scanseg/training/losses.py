"""Losses between a network's outputs and label maps.

Source: Dice with cross-entropy as in nnU-Net (Isensee et al. 2021) and, with squares and background, as in
MSVM-UNet (Chen et al. 2024, arXiv:2408.13735). `LossSpec` holds their differences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.ops import masks_of, segmentation_sums
from scanseg.specs import BACKGROUND, DatasetSpec, LossSpec

Logits = Float[Tensor, "batch output *axes"]


@dataclass(frozen=True, eq=False)
class Targets:
    """Target masks of the outputs."""

    masks: Float[Tensor, "batch output *axes"]
    """1 at voxels of the class or region of the output, else 0."""
    valid: Float[Tensor, "batch 1 *axes"] | None
    """0 at voxels of the ignore label, else 1. `None`: no ignore label."""


def encode_targets(label_map: Int[Tensor, "batch *axes"], *, dataset: DatasetSpec) -> Targets:
    """Return one mask per output: a class (with background) or a region.

    Args:
        label_map: Integer label values.
        dataset: Labels or regions, and the ignore label.
    """
    valid = None
    if dataset.ignore_label is not None:
        valid = (label_map != dataset.ignore_label).unsqueeze(1).float()
    return Targets(masks_of(label_map, _groups(dataset)).float(), valid)


def _groups(dataset: DatasetSpec) -> list[tuple[int, ...]]:
    """Return the label values of each output."""
    foreground = [*dataset.foreground.values()]
    return foreground if dataset.has_regions else [(0,), *foreground]


Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes that share a batch."""


def _single_process(tensor: Tensor) -> Tensor:
    """Return the sum over a single process: the tensor itself."""
    return tensor


def segmentation_loss(
    outputs: Sequence[Logits],
    label_map: Int[Tensor, "batch *axes"],
    *,
    spec: LossSpec,
    dataset: DatasetSpec,
    total: Total = _single_process,
) -> Float[Tensor, ""]:
    """Return the loss over all outputs of a network.

    Args:
        outputs: Logits, the highest resolution first. Deep supervision has several: each counts half as much as the
            previous one, and the coarsest counts 0.
        label_map: Integer label values at the highest resolution.
        spec: Weights and form of the loss.
        dataset: Label values of each output.
        total: Function that sums over the processes that share the batch. Sums over the batch then cover the whole
            batch, and the mean loss of the processes is the loss of the whole batch.

    Returns:
        The loss, a scalar.
    """
    weights = [0.5**level for level in range(len(outputs))]
    if len(weights) > 1:
        weights[-1] = 0.0
    whole = sum(weights)
    loss = torch.zeros((), device=label_map.device)
    for weight, logits in zip(weights, outputs, strict=True):
        if weight:
            labels = _resize(label_map, logits.shape[2:])
            loss = loss + weight / whole * _single_loss(logits, labels, spec, dataset, total=total)
    return loss


def _resize(label_map: Tensor, size: Sequence[int]) -> Tensor:
    """Resize label maps to a coarser grid by nearest neighbour.

    Args:
        label_map: Axes (batch, *axes).
        size: Voxels per axis.
    """
    if label_map.shape[1:] == tuple(size):
        return label_map
    return F.interpolate(label_map.unsqueeze(1).float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        label_map.dtype
    )


def _single_loss(
    logits: Logits,
    label_map: Int[Tensor, "batch *axes"],
    spec: LossSpec,
    dataset: DatasetSpec,
    *,
    total: Total,
) -> Tensor:
    """Return the loss of one output."""
    weights, regions = _uneven_weights(spec, dataset), dataset.has_regions
    sums = segmentation_sums(
        logits,
        label_map,
        groups=_groups(dataset),
        regions=regions,
        weights=weights,
        ignore_label=dataset.ignore_label,
        squared=spec.dice_squared,
        over_batch=spec.dice_over_batch,
        first_output=0 if spec.dice_background or regions else 1,
    )
    loss = torch.zeros((), device=logits.device)
    if spec.dice_weight:
        loss = loss + spec.dice_weight * _dice(sums.overlap, sums.predicted, sums.actual, spec, total=total)
    if spec.cross_entropy_weight:
        if dataset.ignore_label is None and (regions or weights is None):
            # Every voxel has the same weight in every process.
            cross_entropy = sums.cross_entropy / label_map.numel()
        else:
            cross_entropy = total(sums.cross_entropy) / total(sums.counted).clamp_min(1e-8)
        loss = loss + spec.cross_entropy_weight * cross_entropy
    return loss


def _uneven_weights(spec: LossSpec, dataset: DatasetSpec) -> list[float] | None:
    """Return the weight of each output in the cross-entropy.

    `None`: all weights are equal.
    """
    names = list(dataset.foreground) if dataset.has_regions else [BACKGROUND, *dataset.foreground]
    weights = [spec.label_weights.get(name, 1.0) for name in names]
    return None if all(weight == weights[0] for weight in weights) else weights


def _dice(overlap: Tensor, predicted: Tensor, actual: Tensor, spec: LossSpec, *, total: Total) -> Tensor:
    """Return 1 - mean Dice, from sums over voxels."""
    size = predicted + actual
    if spec.dice_over_batch:
        overlap, size = total(overlap), total(size)
    return 1 - ((2 * overlap + spec.dice_smooth) / (size + spec.dice_smooth).clamp_min(1e-8)).mean()
