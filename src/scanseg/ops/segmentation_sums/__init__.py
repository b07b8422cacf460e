"""Sums for Dice and cross-entropy from logits and a label map.

The Triton backend makes no copy of the logits. With p the probabilities (softmax over classes, a sigmoid for each
region), t the masks of the outputs, v the validity of a voxel (0 or 1), and w the weight of an output:

    overlap = sum v p t,   predicted = sum v p   or   sum v p^2,   actual = sum v t
    classes:   cross_entropy = - sum v w log p,   counted = sum v w,   both for the class of the voxel
    regions:   cross_entropy = - sum v mean_w (t log p + (1 - t) log(1 - p)),   counted = sum v
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from jaxtyping import Float, Int
from torch import Tensor

from scanseg.errors import InputError
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import INTERPRETED, MISSING
from scanseg.ops.segmentation_sums.reference import dice_sums, masks_of, segmentation_sums_reference
from scanseg.ops.segmentation_sums.triton_backend import refuses, segmentation_sums_triton

__all__ = ["BACKENDS", "SegmentationSums", "dice_sums", "masks_of", "segmentation_sums"]

# The type of the table has operators with one result only.
_Run = Callable[..., Tensor]

BACKENDS = {
    "triton": Backend(
        cast(_Run, segmentation_sums_triton), refuses, MISSING, by_name_only=INTERPRETED, custom=True
    ),
    "reference": Backend(cast(_Run, segmentation_sums_reference)),
}


class SegmentationSums(NamedTuple):
    """Sums over voxels, in float32 at least.

    Rows are samples, or one row for the batch. Gradients flow through `overlap`, `predicted` and `cross_entropy`.
    """

    overlap: Float[Tensor, "row output"]
    predicted: Float[Tensor, "row output"]
    actual: Float[Tensor, "row output"]
    cross_entropy: Float[Tensor, ""]
    counted: Float[Tensor, ""]
    """Sum of the weights of the voxels. `cross_entropy / counted` is the mean cross-entropy."""


def segmentation_sums(
    logits: Float[Tensor, "batch output *axes"],
    label_map: Int[Tensor, "batch *axes"],
    *,
    groups: Sequence[Sequence[int]],
    regions: bool,
    weights: Sequence[float] | None = None,
    ignore_label: int | None = None,
    squared: bool = False,
    over_batch: bool = True,
    first_output: int = 0,
    backend: str | None = None,
) -> SegmentationSums:
    """Compute the sums of Dice and cross-entropy.

    Args:
        logits: Logits of each output.
        label_map: Label values. Every value must be in a group or be the ignore label. This is not checked, because
            the check would wait for the GPU.
        groups: The label values of each output, one value for each class.
        regions: Whether outputs may overlap, each with its own sigmoid. Otherwise outputs are classes with a softmax.
        weights: Weight of each output in the cross-entropy. `None`: equal weights.
        ignore_label: Label value of voxels to ignore. `None`: no voxel is ignored.
        squared: Whether `predicted` sums the squares of the probabilities.
        over_batch: Whether to sum over samples too.
        first_output: First output with a column in `overlap`, `predicted` and `actual`.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Raises:
        InputError: The arguments do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import segmentation_sums
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> label_map = torch.zeros(1, 4, 4, dtype=torch.long)
        >>> sums = segmentation_sums(logits, label_map, groups=[[0], [1]], regions=False)
        >>> sums.overlap, sums.actual
        (tensor([[8., 0.]]), tensor([[16.,  0.]]))
        >>> dice = (2 * sums.overlap / (sums.predicted + sums.actual))[0, 0]
        >>> round(dice.item(), 4), round((sums.cross_entropy / sums.counted).item(), 4)
        (0.6667, 0.6931)
    """
    _check(logits, label_map, groups, weights, regions=regions, first_output=first_output)
    chosen = choose("segmentation_sums", BACKENDS, backend, logits, label_map)
    return SegmentationSums(
        *chosen.run(
            logits,
            label_map,
            groups=groups,
            regions=regions,
            weights=weights,
            ignore_label=ignore_label,
            squared=squared,
            over_batch=over_batch,
            first_output=first_output,
        )
    )


def _check(
    logits: Tensor,
    label_map: Tensor,
    groups: Sequence[Sequence[int]],
    weights: Sequence[float] | None,
    *,
    regions: bool,
    first_output: int,
) -> None:
    """Check that all arguments fit together.

    Raises:
        InputError: They do not. The message lists all faults.
    """
    if logits.ndim < 3 or logits.numel() == 0 or not logits.is_floating_point():
        raise InputError(
            "segmentation_sums: logits: expected floating numbers (batch, output, *axes), none of the axes empty, got "
            f"{logits.dtype} of shape {tuple(logits.shape)}. Pass the logits of a network."
        )
    num_outputs, wrong = logits.shape[1], []
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(label_map.shape) != expected:
        wrong.append(f"label_map: expected shape {expected}, got {tuple(label_map.shape)}")
    if label_map.is_floating_point() or label_map.is_complex():
        wrong.append(f"label_map: expected an integer dtype, got {label_map.dtype}")
    if label_map.device != logits.device:
        wrong.append(f"label_map: expected the device of logits, {logits.device}, got {label_map.device}")
    if len(groups) != num_outputs:
        wrong.append(f"groups: expected {num_outputs}, one for each output, got {len(groups)}")
    if any(not group if regions else len(group) != 1 for group in groups):
        number = "at least one label" if regions else "one label"
        wrong.append(f"groups: expected {number} in each, got {[*map(tuple, groups)]}")
    if weights is not None and len(weights) != num_outputs:
        wrong.append(f"weights: expected {num_outputs}, one for each output, got {len(weights)}")
    if not 0 <= first_output < num_outputs:
        wrong.append(
            f"first_output: expected one of {num_outputs} outputs, counted from 0, got {first_output}"
        )
    if wrong:
        raise InputError(f"segmentation_sums: {'; '.join(wrong)}. Match the sizes and the device of logits.")
