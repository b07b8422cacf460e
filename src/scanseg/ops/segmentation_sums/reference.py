"""Sums of Dice and cross-entropy in PyTorch, for any dtype."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scanseg.ops._support.contract import state_dtype

Maps = Float[Tensor, "batch output *axes"]


def segmentation_sums_reference(
    logits: Maps,
    label_map: Int[Tensor, "batch *axes"],
    *,
    groups: Sequence[Sequence[int]],
    regions: bool,
    weights: Sequence[float] | None,
    ignore_label: int | None,
    squared: bool,
    over_batch: bool,
    first_output: int,
) -> tuple[Tensor, ...]:
    """Compute masks, probabilities and their sums.

    Arguments and results are those of `segmentation_sums`.
    """
    logits = logits.to(state_dtype(logits))
    masks = masks_of(label_map, groups).to(logits.dtype)
    valid = None if ignore_label is None else (label_map != ignore_label).unsqueeze(1).to(logits.dtype)
    probabilities = logits.sigmoid() if regions else logits.softmax(1)
    if first_output:
        probabilities, of_dice = probabilities[:, first_output:], masks[:, first_output:]
    else:
        of_dice = masks
    overlap, predicted, actual = dice_sums(
        probabilities, of_dice, valid=valid, squared=squared, over_batch=over_batch
    )
    cross_entropy, counted = _cross_entropy(logits, masks, weights, valid=valid, regions=regions)
    if over_batch:
        overlap, predicted, actual = (sums.unsqueeze(0) for sums in (overlap, predicted, actual))
    return overlap, predicted, actual, cross_entropy, counted


def masks_of(
    label_map: Int[Tensor, "batch *axes"], groups: Sequence[Sequence[int]]
) -> Bool[Tensor, "batch output *axes"]:
    """Return the mask of each output from a label map.

    A mask is true if the label is in the group of the output.

    Args:
        label_map: Label values.
        groups: The label values of each output.

    Example:
        >>> import torch
        >>> from scanseg.ops import masks_of
        >>> masks = masks_of(torch.tensor([[[0, 1], [2, 1]]]), groups=[[1, 2], [2]])
        >>> masks.shape, masks[0, 1].tolist()
        (torch.Size([1, 2, 2, 2]), [[False, False], [True, False]])
    """
    return torch.stack([_is_one_of(label_map, group) for group in groups], dim=1)


def _is_one_of(label_map: Tensor, values: Sequence[int]) -> Tensor:
    """Compare a label map with each value.

    `torch.isin` would copy the values to the device, which a CUDA graph cannot record.
    """
    mask = label_map == values[0]
    for value in values[1:]:
        mask = mask | (label_map == value)
    return mask


def dice_sums(
    probabilities: Maps,
    masks: Maps,
    *,
    valid: Float[Tensor, "batch 1 *axes"] | None,
    squared: bool,
    over_batch: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sums of Dice.

    Args:
        probabilities: Probabilities of each output.
        masks: Mask of each output, 0 or 1.
        valid: 0 for voxels to ignore, else 1. `None`: no voxel is ignored.
        squared: Whether to sum the squares of the probabilities in the second result.
        over_batch: Whether to sum over samples too.

    Returns:
        Overlap, predicted and actual: (output,) if over the batch, else (batch, output).
    """
    if valid is not None:
        probabilities, masks = probabilities * valid, masks * valid
    axes = tuple(range(2, masks.ndim))
    if over_batch:
        axes = (0, *axes)
    overlap = (probabilities * masks).sum(axes)
    predicted = (probabilities.square() if squared else probabilities).sum(axes)
    return overlap, predicted, masks.sum(axes)


def _cross_entropy(
    logits: Tensor, masks: Tensor, weights: Sequence[float] | None, *, valid: Tensor | None, regions: bool
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of cross-entropies and the sum of weights."""
    counted = valid
    if regions:
        binary = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
        losses = (
            binary.mean(1, keepdim=True) if weights is None else _weighted(binary, weights) / sum(weights)
        )
    else:
        losses = F.cross_entropy(logits, masks.argmax(1), reduction="none").unsqueeze(1)
        if weights is not None:
            of_voxels = _weighted(masks, weights)
            counted = of_voxels if counted is None else counted * of_voxels
    if counted is None:
        return losses.sum(), losses.new_full((), losses.numel())
    return (losses * counted).sum(), counted.sum()


def _weighted(maps: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of the maps of all outputs.

    The result is (batch, 1, *axes).

    Weights stay Python numbers for the same reason as in `_is_one_of`.
    """
    return sum(
        (weight * channel for weight, channel in zip(weights, maps.split(1, dim=1), strict=True)),
        start=torch.zeros((), device=maps.device),
    )
