"""Instances in label maps, and scores of predicted instances.

Source of the score: Ma et al. 2024, NeurIPS cell segmentation challenge. xLSTM-UNet's table of cells uses it. Instances
at the border are left out, and pairs are matched one to one at an intersection over union of 0.5 or more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, Integer
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.evaluation.separation import split_at_necks

INTERIOR, BOUNDARY = 1, 2
"""Values of the interior and of the boundary in a label map."""

GROW = 2
"""Voxels of boundary that join an instance by default. A predicted boundary is often two voxels thick."""
NECK = 0.6
"""Default largest half width of a neck at which interiors are split, as a fraction of that of the narrower part."""
IOU = 0.5
BORDER = 2
TILED_PIXELS = 25_000_000
"""Number of pixels above which images of two axes are scored in tiles, as published."""
TILE = 2000


@dataclass(frozen=True)
class InstanceScores:
    """Matched, false and missed instances of one image."""

    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float
    """Sum of the intersections over unions of the matched pairs."""

    def __add__(self, other: "InstanceScores") -> "InstanceScores":
        """Return the sums of the counts of two images."""
        return InstanceScores(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall. `None` without any instance."""
        return _ratio(2 * self.true_positives, self._weight)

    @property
    def precision(self) -> float | None:
        """Fraction of predicted instances with a match. `None` without predicted instances."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Fraction of reference instances with a match. `None` without reference instances."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def mean_iou(self) -> float | None:
        """Mean intersection over union of matched pairs. `None` without any pair."""
        return _ratio(self.iou_sum, self.true_positives)

    @property
    def panoptic_quality(self) -> float | None:
        """F1 times the mean intersection over union. `None` without any instance."""
        return _ratio(2 * self.iou_sum, self._weight)

    @property
    def _weight(self) -> int:
        return 2 * self.true_positives + self.false_positives + self.false_negatives


def find_instances(
    label_map: Integer[np.ndarray, "*spatial"],
    *,
    interior: int = INTERIOR,
    boundary: int | None = BOUNDARY,
    grow: int = 0,
    neck: float = 0.0,
    min_voxels: int = 0,
) -> Int32[np.ndarray, "*spatial"]:
    """Number the instances in a label map of interior and boundary.

    Args:
        label_map: Label map (z, y, x) or (y, x).
        interior: Value of the voxels whose connected components are the instances. Voxels that share a corner are
            connected.
        boundary: Value of the voxels that instances may grow into. `None`: no value.
        grow: Largest distance in voxels, along axes and diagonals, at which a boundary voxel joins the nearest
            instance. 1 undoes a boundary one voxel thick.
        neck: Split interiors at necks whose half width is below this fraction of the narrower part's, from 0 to 1. 0:
            do not split.
        min_voxels: Smallest number of voxels of a grown instance. Smaller instances are left out.

    Returns:
        Instance map of the same shape: consecutive numbers from 1, and 0 for no instance.

    Raises:
        InputError: `grow` or `min_voxels` is negative, `neck` is not from 0 to 1, or `interior` equals `boundary`.
    """
    if grow < 0 or min_voxels < 0 or not 0 <= neck <= 1 or interior == boundary:
        raise InputError(
            f"interior {interior}, boundary {boundary}, grow {grow}, neck {neck}, min_voxels {min_voxels}: expected "
            "different values of interior and boundary, grow and min_voxels of at least 0, and neck from 0 to 1."
        )
    instances, _ = ndimage.label(label_map == interior, structure=np.ones((3,) * label_map.ndim))
    numbers = instances.astype(np.int32, copy=False)
    if neck:
        numbers = split_at_necks(numbers, neck=neck)
    if grow and boundary is not None and numbers.any():
        numbers = _grown(numbers, label_map == boundary, grow)
    return _large(numbers, min_voxels) if min_voxels > 1 else numbers


def _grown(
    numbers: Int32[np.ndarray, "*spatial"], boundary: Bool[np.ndarray, "*spatial"], grow: int
) -> Int32[np.ndarray, "*spatial"]:
    """Assign boundary voxels within chessboard distance `grow` to the nearest instance."""
    distances, nearest = ndimage.distance_transform_cdt(
        numbers == 0, metric="chessboard", return_indices=True
    )
    return np.where(boundary & (distances <= grow), numbers[tuple(nearest)], numbers)


def _large(numbers: Int32[np.ndarray, "*spatial"], min_voxels: int) -> Int32[np.ndarray, "*spatial"]:
    """Remove instances below `min_voxels` voxels and number the others consecutively."""
    kept = np.bincount(numbers.ravel()) >= min_voxels
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[numbers]


def score_instances(
    prediction: Integer[np.ndarray, "*spatial"],
    reference: Integer[np.ndarray, "*spatial"],
    *,
    iou: float = IOU,
    border: int = BORDER,
) -> InstanceScores:
    """Count the matched, false and missed instances of a prediction.

    Args:
        prediction: Instance map (z, y, x) or (y, x). 0 is no instance.
        reference: Instance map of the same shape.
        iou: Smallest intersection over union of a matched pair, above 0 and at most 1.
        border: Width in pixels of a border at both ends of y and x. Instances that reach into it are left out of both
            maps.

    Raises:
        InputError: The arrays are no instance maps of equal shape, or `iou` or `border` is out of range.
    """
    _check(prediction, reference, iou=iou, border=border)
    total = InstanceScores(0, 0, 0, 0.0)
    for tile in _tiles(reference.shape):
        kept = (_without_border(instances[tile], border) for instances in (prediction, reference))
        total += _match(*kept, iou=iou)
    return total


def _check(prediction: np.ndarray, reference: np.ndarray, *, iou: float, border: int) -> None:
    faults = []
    if prediction.shape != reference.shape or reference.ndim not in (2, 3):
        faults.append(
            f"shapes: expected equal shapes of two or three axes, got prediction {prediction.shape} and reference "
            f"{reference.shape}"
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iu":
            faults.append(f"{name}: expected integers in an instance map, got {array.dtype}")
        elif array.size and array.min() < 0:
            faults.append(
                f"{name}: expected instances numbered from 1, and 0 for none, got the number {array.min()}"
            )
    if not 0 < iou <= 1:
        faults.append(f"iou: expected a number above 0 and at most 1, got {iou}")
    if border < 0:
        faults.append(f"border: expected 0 or more, got {border}")
    if faults:
        raise InputError("; ".join(faults))


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the index of the whole image, or of each tile."""
    if len(shape) == 3 or np.prod(shape) <= TILED_PIXELS:
        yield (...,)  # type: ignore[misc]
        return
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            yield slice(top, top + TILE), slice(left, left + TILE)


def _without_border(instances: Integer[np.ndarray, "*box"], border: int) -> Int64[np.ndarray, "*box"]:
    """Remove instances at the border of the last two axes and renumber."""
    values, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape)
    touching = np.zeros(len(values), dtype=bool)
    touching[values == 0] = True
    if border:
        for edge in (
            np.s_[..., :border, :],
            np.s_[..., -border:, :],
            np.s_[..., :border],
            np.s_[..., -border:],
        ):
            touching[np.unique(numbers[edge])] = True
    new_numbers = np.where(touching, 0, np.cumsum(~touching))
    return new_numbers[numbers]


def _match(
    prediction: Int64[np.ndarray, "*box"], reference: Int64[np.ndarray, "*box"], *, iou: float
) -> InstanceScores:
    """Match instances one to one.

    The number of pairs is maximal, and among such matchings their total overlap is.
    """
    num_predicted, num_referred = int(prediction.max(initial=0)), int(reference.max(initial=0))
    both = (prediction > 0) & (reference > 0)
    pairs, common = np.unique(prediction[both] * (num_referred + 1) + reference[both], return_counts=True)
    predicted, referred = np.divmod(pairs, num_referred + 1)
    sizes = [np.bincount(instances.ravel(), minlength=1) for instances in (prediction, reference)]
    ious = common / (sizes[0][predicted] + sizes[1][referred] - common)
    fit = ious >= iou
    matched = _assign(predicted[fit], referred[fit], ious[fit])
    return InstanceScores(
        true_positives=len(matched),
        false_positives=num_predicted - len(matched),
        false_negatives=num_referred - len(matched),
        iou_sum=float(matched.sum()),
    )


def _assign(
    predicted: Int64[np.ndarray, " pair"],
    referred: Int64[np.ndarray, " pair"],
    ious: Float[np.ndarray, " pair"],
) -> Float[np.ndarray, " match"]:
    """Return the overlaps of the matched pairs.

    Unambiguous pairs, in which neither instance has a second candidate, are matched without an assignment problem.
    With a threshold above 0.5 all pairs are unambiguous, so images with thousands of instances need no large matrix.
    """
    unambiguous = _occurs_once(predicted) & _occurs_once(referred)
    if unambiguous.all():
        return ious
    from scipy.optimize import linear_sum_assignment  # its import takes a third of a second

    rows, row_of = np.unique(predicted[~unambiguous], return_inverse=True)
    columns, column_of = np.unique(referred[~unambiguous], return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))
    gain[row_of, column_of] = 1 + ious[~unambiguous] / (2 * min(gain.shape))
    overlap = np.zeros_like(gain)
    overlap[row_of, column_of] = ious[~unambiguous]
    chosen = overlap[linear_sum_assignment(gain, maximize=True)]
    return np.concatenate([ious[unambiguous], chosen[chosen > 0]])


def _occurs_once(numbers: Int64[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
    return np.bincount(numbers, minlength=1)[numbers] == 1


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
