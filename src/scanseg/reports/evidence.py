"""Counts over the voxels of cases: confusion, reliability, errors over entropy.

Counts of several cases are added. Reliability and entropy use voxels in the box around labels of prediction or
reference, with a margin, because nearly all other voxels are certain and correct. Source: Mehrtash et al. 2020,
doi:10.1109/TMI.2020.3006437, section II-D (boxes around the foreground).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from scipy import ndimage

from scanseg.reports.runs import Runs

NUM_BINS = 15
"""Bins of the confidence. Source: Guo et al. 2017, arXiv:1706.04599, section 4."""
NUM_ENTROPY_BINS = 10
MARGIN_VOXELS = 8
"""Margin of the box around labels."""
MOST_SAMPLES = 200_000
"""Voxels of a case from which reliability is computed."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and correctness of decisions, in bins of the confidence."""

    counts: Int64[np.ndarray, " bin"] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    """Voxels in each bin."""
    confidence: Float[np.ndarray, " bin"] = field(default_factory=lambda: np.zeros(NUM_BINS))
    """Sum of their confidence."""
    correct: Float[np.ndarray, " bin"] = field(default_factory=lambda: np.zeros(NUM_BINS))
    """Number of correct voxels."""

    @classmethod
    def of(
        cls, confidence: Float[np.ndarray, " voxel"], correct: Bool[np.ndarray, " voxel"]
    ) -> "Reliability":
        """Count voxels.

        Args:
            confidence: Probability of the decision of each voxel.
            correct: Whether the decision is right.
        """
        bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        return cls(
            np.bincount(bins, minlength=NUM_BINS).astype(np.int64),
            np.bincount(bins, weights=confidence, minlength=NUM_BINS),
            np.bincount(bins, weights=correct, minlength=NUM_BINS),
        )

    def __add__(self, other: "Reliability") -> "Reliability":
        """Add the counts of other voxels."""
        return Reliability(
            self.counts + other.counts, self.confidence + other.confidence, self.correct + other.correct
        )

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and correctness, weighted by voxels.

        Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
        """
        total = int(self.counts.sum())
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    def curve(self) -> tuple[Float[np.ndarray, " bin"], Float[np.ndarray, " bin"]]:
        """Return mean confidence and share of correct voxels of each bin.

        Empty bins are NaN.
        """
        counts = np.where(self.counts > 0, self.counts, np.nan)
        return self.confidence / counts, self.correct / counts


@dataclass(frozen=True, eq=False)
class EntropyCounts:
    """Voxels and errors in bins of the entropy from 0 to 1."""

    counts: Int64[np.ndarray, " bin"] = field(default_factory=lambda: np.zeros(NUM_ENTROPY_BINS, np.int64))
    wrong: Int64[np.ndarray, " bin"] = field(default_factory=lambda: np.zeros(NUM_ENTROPY_BINS, np.int64))

    @classmethod
    def of(cls, entropy: Float[np.ndarray, " voxel"], wrong: Bool[np.ndarray, " voxel"]) -> "EntropyCounts":
        """Count voxels.

        Args:
            entropy: Entropy of each voxel, from 0 to 1.
            wrong: Whether prediction and reference differ.
        """
        bins = np.clip((entropy * NUM_ENTROPY_BINS).astype(int), 0, NUM_ENTROPY_BINS - 1)
        return cls(
            np.bincount(bins, minlength=NUM_ENTROPY_BINS),
            np.bincount(bins[wrong], minlength=NUM_ENTROPY_BINS),
        )

    def __add__(self, other: "EntropyCounts") -> "EntropyCounts":
        """Add the counts of other voxels."""
        return EntropyCounts(self.counts + other.counts, self.wrong + other.wrong)

    def errors(self) -> Float[np.ndarray, " bin"]:
        """Return the share of wrong voxels in each bin.

        Empty bins are NaN.
        """
        return self.wrong / np.where(self.counts > 0, self.counts, np.nan)


@dataclass(frozen=True)
class Shape:
    """Size and place of a label in a case."""

    num_voxels: int
    num_components: int
    """Connected parts, through faces, edges and corners."""
    position: tuple[float, ...]
    """Centre of mass as a fraction of the image, along each axis."""


def count_confusion(
    label_map: UInt8[np.ndarray, "*spatial"],
    reference: UInt8[np.ndarray, "*spatial"],
    values: Sequence[int],
    *,
    ignore_label: int | None,
) -> Int64[np.ndarray, "reference predicted"]:
    """Count the voxels of each pair of reference and predicted value.

    Args:
        label_map: Predicted values.
        reference: Reference values.
        values: Values of rows and columns. Voxels with others are left out.
        ignore_label: Value of the reference that is not counted. `None`: no such value.
    """
    place = np.full(256, len(values), np.int64)
    place[list(values)] = range(len(values))
    if ignore_label is not None:
        place_reference = place.copy()
        place_reference[ignore_label] = len(values)
    else:
        place_reference = place
    size = len(values) + 1
    total = np.zeros(size * size, np.int64)
    planes = (each if each.ndim == 3 else each[np.newaxis] for each in (label_map, reference))
    for predicted, referred in zip(*planes, strict=True):  # bounds the memory
        codes = predicted.astype(np.uint16) | (referred.astype(np.uint16) << 8)
        pairs = np.bincount(codes.reshape(-1), minlength=65536)
        found = np.flatnonzero(pairs)
        np.add.at(total, place_reference[found >> 8] * size + place[found & 255], pairs[found])
    return total.reshape(size, size)[:-1, :-1]


def find_box(masks: Sequence[np.ndarray], *, margin: int = MARGIN_VOXELS) -> tuple[slice, ...]:
    """Return the box around the nonzero voxels of all maps.

    Args:
        masks: Maps of one shape.
        margin: Voxels around the box.

    Returns:
        A slice along each axis. The whole image if all maps are zero.
    """
    shape, box = masks[0].shape, []
    for axis, size in enumerate(shape):
        others = tuple(each for each in range(len(shape)) if each != axis)
        found = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not len(found):
            return (slice(None),) * len(shape)
        box.append(slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)))
    return tuple(box)


def sample_voxels(shape: Sequence[int], box: tuple[slice, ...]) -> tuple[Int64[np.ndarray, " voxel"], ...]:
    """Return the indices of voxels in a box.

    Large boxes are sampled at random.

    Args:
        shape: Shape of the image.
        box: The box.

    Returns:
        Indices along each axis. The same call returns the same sample.
    """
    ranges = [range(*part.indices(size)) for part, size in zip(box, shape, strict=True)]
    sizes = [len(each) for each in ranges]
    total = int(np.prod(sizes))
    if total <= MOST_SAMPLES:
        chosen = np.arange(total)
    else:
        chosen = np.sort(np.random.default_rng(0).integers(0, total, MOST_SAMPLES))
    return tuple(
        index + part.start for index, part in zip(np.unravel_index(chosen, sizes), ranges, strict=True)
    )


def measure_shapes(
    label_map: UInt8[np.ndarray, "*spatial"], labels: dict[str, tuple[int, ...]]
) -> dict[str, Shape | None]:
    """Measure size, parts and position of each label.

    Args:
        label_map: Label values.
        labels: Values of each label, by name.

    Returns:
        Shapes by label. `None`: no voxel has the label.
    """
    boxes = ndimage.find_objects(label_map, max_label=255)
    shapes: dict[str, Shape | None] = {}
    for name, values in labels.items():
        found = [box for value in values if (box := boxes[value - 1]) is not None]
        if not found:
            shapes[name] = None
            continue
        box = tuple(
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*found, strict=True)
        )
        mask = label_map[box] == values[0] if len(values) == 1 else np.isin(label_map[box], values)
        runs = Runs.of(mask)
        centre = tuple(
            float(part.start + np.average(np.arange(mask.shape[axis]), weights=runs.count_voxels(axis)) + 0.5)
            / size
            for axis, (part, size) in enumerate(zip(box, label_map.shape, strict=True))
        )
        shapes[name] = Shape(runs.num_voxels, runs.count_components(), centre)
    return shapes
