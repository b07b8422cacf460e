"""The sums that Dice and cross-entropy are made of, from logits and a label map, without a copy of the logits.

With p the probabilities (softmax over classes, a sigmoid for each region), t the masks of the outputs, v 1 where a
voxel counts, and w how much outputs count:

    overlap = sum v p t,   predicted = sum v p   or   sum v p^2,   actual = sum v t
    classes:   cross_entropy = - sum v w log p,   counted = sum v w,   both of the class that the voxel has
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

# The table's type knows operators with one result.
_Run = Callable[..., Tensor]

BACKENDS = {
    "triton": Backend(cast(_Run, segmentation_sums_triton), refuses, MISSING, by_name_only=INTERPRETED),
    "reference": Backend(cast(_Run, segmentation_sums_reference)),
}


class SegmentationSums(NamedTuple):
    """Sums over voxels, in float32 at least; rows are samples, or one row for the batch.

    Gradients flow through `overlap`, `predicted` and `cross_entropy`.
    """

    overlap: Float[Tensor, "row output"]
    predicted: Float[Tensor, "row output"]
    actual: Float[Tensor, "row output"]
    cross_entropy: Float[Tensor, ""]
    counted: Float[Tensor, ""]
    """Sum of what the voxels count in `cross_entropy`, which divided by it is a mean."""


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
    """Sum up what Dice and cross-entropy need.

    Args:
        logits: Of each output.
        label_map: Every value is in a group or the ignore label; nothing asks, since a GPU would have to be waited for.
        groups: The label values of each output; one for each class.
        regions: Outputs overlap, each with a sigmoid of its own; else they are classes, with a softmax over them.
        weights: How much each output counts in the cross-entropy; None: all the same.
        ignore_label: Value of the voxels that do not count.
        squared: Sum up squares of probabilities in `predicted`.
        over_batch: Sum over samples too.
        first_output: Outputs before it have no columns in `overlap`, `predicted` and `actual`.
        backend: Name of the backend that must serve; None for the first that accepts.

    Raises:
        InputError: If the arguments do not fit together.
        UsageError: If the backend asked for is unknown or refuses.
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
    """Raise one `InputError` with everything that does not fit together."""
    if logits.ndim < 3 or logits.numel() == 0 or not logits.is_floating_point():
        raise InputError(
            f"segmentation_sums: logits are {logits.dtype} of shape {tuple(logits.shape)}; pass floating numbers "
            "(batch, output, *axes), none of the axes empty."
        )
    num_outputs, wrong = logits.shape[1], []
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(label_map.shape) != expected:
        wrong.append(f"label_map has shape {tuple(label_map.shape)}, not {expected}")
    if label_map.is_floating_point() or label_map.is_complex():
        wrong.append(f"label_map has dtype {label_map.dtype}, not one of integers")
    if label_map.device != logits.device:
        wrong.append(f"label_map is on {label_map.device}, logits on {logits.device}")
    if len(groups) != num_outputs:
        wrong.append(f"groups are {len(groups)}, outputs {num_outputs}")
    if any(not group if regions else len(group) != 1 for group in groups):
        wrong.append(
            f"groups {[*map(tuple, groups)]} must hold {'a label or more' if regions else 'one label'} each"
        )
    if weights is not None and len(weights) != num_outputs:
        wrong.append(f"weights are {len(weights)}, outputs {num_outputs}")
    if not 0 <= first_output < num_outputs:
        wrong.append(f"first_output {first_output} is not among {num_outputs} outputs")
    if wrong:
        raise InputError(f"segmentation_sums: {'; '.join(wrong)}. The sizes follow from logits.")
