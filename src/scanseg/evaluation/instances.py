"""Objects in label maps, and how many of them a prediction finds.

Source of the score: Ma et al. 2024, NeurIPS cell segmentation challenge, behind xLSTM-UNet's table of cells: objects at
the border are left out, pairs are matched one to one at an intersection over union of 0.5 or more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, Integer
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from scanseg.errors import InputError

INTERIOR, BOUNDARY = 1, 2
"""Values of a label map of interior and boundary."""

IOU = 0.5
BORDER = 2
TILED_PIXELS = 25_000_000
"""Images of two axes with more pixels are scored in tiles, as published."""
TILE = 2000


@dataclass(frozen=True)
class InstanceScores:
    """Objects matched, false and missed in one image."""

    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float
    """Intersections over unions of the matched pairs, summed."""

    def __add__(self, other: "InstanceScores") -> "InstanceScores":
        """Return the objects of two images taken together."""
        return InstanceScores(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where there is no object at all."""
        return _ratio(2 * self.true_positives, self._weight)

    @property
    def precision(self) -> float | None:
        """Part of the predicted objects that are right; None where nothing is predicted."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Part of the objects that are found; None where there are none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def mean_iou(self) -> float | None:
        """Mean intersection over union of the matched pairs."""
        return _ratio(self.iou_sum, self.true_positives)

    @property
    def panoptic_quality(self) -> float | None:
        """F1 times the mean intersection over union of the matched pairs."""
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
    min_voxels: int = 0,
) -> Int32[np.ndarray, "*spatial"]:
    """Number the objects of a label map of interior and boundary, in two or three axes.

    Args:
        label_map: Labels of every voxel.
        interior: Value of the voxels whose connected components (corners connect) are the objects.
        boundary: Value of the voxels by which objects grow; None: no value.
        grow: Largest distance in voxels, along axes and diagonals, of a boundary voxel that joins the nearest object. 1
            undoes a boundary that is one voxel thick.
        min_voxels: Objects with fewer voxels, after they have grown, are left out.

    Returns:
        Numbers from 1 without gaps, 0 for no object.

    Raises:
        InputError: `grow` or `min_voxels` is negative, or the two values are one.
    """
    if grow < 0 or min_voxels < 0 or interior == boundary:
        raise InputError(
            f"interior {interior}, boundary {boundary}, grow {grow}, min_voxels {min_voxels}: the values must differ, "
            "grow and min_voxels must be 0 or above"
        )
    instances, _ = ndimage.label(label_map == interior, structure=np.ones((3,) * label_map.ndim))
    numbers = instances.astype(np.int32, copy=False)
    if grow and boundary is not None and numbers.any():
        numbers = _grown(numbers, label_map == boundary, grow)
    return _large(numbers, min_voxels) if min_voxels > 1 else numbers


def _grown(
    numbers: Int32[np.ndarray, "*spatial"], boundary: Bool[np.ndarray, "*spatial"], grow: int
) -> Int32[np.ndarray, "*spatial"]:
    """Let voxels of the boundary join the nearest object, up to a distance along axes and diagonals."""
    distances, nearest = ndimage.distance_transform_cdt(
        numbers == 0, metric="chessboard", return_indices=True
    )
    return np.where(boundary & (distances <= grow), numbers[tuple(nearest)], numbers)


def _large(numbers: Int32[np.ndarray, "*spatial"], min_voxels: int) -> Int32[np.ndarray, "*spatial"]:
    """Leave out small objects and number the others without gaps."""
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
    """Count the objects that a prediction finds, misses, and makes up.

    Args:
        prediction: Number of the object of each voxel, 0 for none; (z, y, x) or (y, x).
        reference: The same of the same shape.
        iou: Least intersection over union of a matched pair, above 0 and up to 1.
        border: Objects that reach into this many pixels at the ends of y and x are left out on both sides.

    Raises:
        InputError: The arrays are no instance maps of one shape, or `iou` or `border` is out of range.
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
            f"the prediction has shape {prediction.shape}, the reference {reference.shape}; they must have one shape "
            "of two or three axes"
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iu":
            faults.append(f"the {name} holds {array.dtype}; instance maps hold integers")
        elif array.size and array.min() < 0:
            faults.append(
                f"the {name} holds the number {array.min()}; instances are numbered from 1, 0 is none"
            )
    if not 0 < iou <= 1:
        faults.append(f"iou {iou} must be above 0 and at most 1")
    if border < 0:
        faults.append(f"border {border} must be 0 or above")
    if faults:
        raise InputError("; ".join(faults))


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Return the whole image, or the tiles of one that is too large."""
    if len(shape) == 3 or np.prod(shape) <= TILED_PIXELS:
        yield (...,)  # type: ignore[misc]
        return
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            yield slice(top, top + TILE), slice(left, left + TILE)


def _without_border(instances: Integer[np.ndarray, "*box"], border: int) -> Int64[np.ndarray, "*box"]:
    """Number the objects from 1 without gaps, those at the border of the last two axes left out."""
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
    anew = np.where(touching, 0, np.cumsum(~touching))
    return anew[numbers]


def _match(
    prediction: Int64[np.ndarray, "*box"], reference: Int64[np.ndarray, "*box"], *, iou: float
) -> InstanceScores:
    """Match objects one to one: as many pairs as can be, and among these the largest overlap."""
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
    """Return the overlaps of the pairs that are matched.

    Pairs of which neither object has another candidate are matched at once: with a threshold above a half that is all
    of them, so that images with many thousand objects need no large matrix.
    """
    alone = _occurs_once(predicted) & _occurs_once(referred)
    if alone.all():
        return ious
    rows, row_of = np.unique(predicted[~alone], return_inverse=True)
    columns, column_of = np.unique(referred[~alone], return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))
    gain[row_of, column_of] = 1 + ious[~alone] / (2 * min(gain.shape))
    overlap = np.zeros_like(gain)
    overlap[row_of, column_of] = ious[~alone]
    chosen = overlap[linear_sum_assignment(gain, maximize=True)]
    return np.concatenate([ious[alone], chosen[chosen > 0]])


def _occurs_once(numbers: Int64[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
    return np.bincount(numbers, minlength=1)[numbers] == 1


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
