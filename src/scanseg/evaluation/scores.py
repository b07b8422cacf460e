"""Scores of one case: Dice, HD95, ASD, NSD and volumes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.evaluation.overlap import Overlap, count_overlaps
from scanseg.evaluation.rules import METRIC_RULES, NOT_COUNTED, Agreement, MetricRule
from scanseg.evaluation.surface import surface_dice, surface_distances
from scanseg.evaluation.tolerances import TOLERANCE_MM, tolerances_of
from scanseg.specs import DistanceUnit, RuleName

MAX_VALUE = 255
"""Highest value of a label."""


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label in one case."""

    dice: float | None
    """Dice, 0 to 1. `None`: not counted."""
    hd95: float | None
    """95th percentile of surface distances.

    `None`: not counted, or not computed. `inf`, with the rule `skip`: exactly one mask is empty.
    """
    asd: float | None
    """Mean surface distance of both directions. `None` and `inf` as for `hd95`."""
    nsd: float | None
    """Surface Dice, 0 to 1. `None`: not counted, or not computed."""
    volume_ml: float | None
    """Volume of the prediction. `None` for images of two axes."""
    reference_volume_ml: float | None
    """Volume of the reference. `None` for images of two axes."""


def score_case(
    prediction: Integer[np.ndarray, "*spatial"],
    reference: Integer[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
    labels: Mapping[str, tuple[int, ...]],
    ignore_label: int | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    label_tolerances_mm: Mapping[str, float] | None = None,
    rule: RuleName = "skip",
    distance_unit: DistanceUnit = "mm",
    surface: bool = True,
) -> dict[str, LabelScores]:
    """Score a predicted label map against its reference.

    Args:
        prediction: Label map (z, y, x) or (y, x), values 0 to 255.
        reference: Label map of the same shape.
        spacing: Millimetres per voxel along the axes (1 for pixels).
        labels: Values (1 to 255) of each label or region, by name.
        ignore_label: Value of the reference. Both label maps count as background at its voxels.
        tolerance_mm: Distance in mm up to which surfaces agree (NSD).
        label_tolerances_mm: Tolerances in mm of single labels, by name.
        rule: Name of the metric rule.
        distance_unit: Unit of HD95 and ASD. `voxels` ignores the spacing. NSD is always in mm.
        surface: Compute HD95, ASD and NSD, which take most of the time.

    Returns:
        Scores of every label, by name.

    Raises:
        InputError: The arrays or the labels cannot be scored. One message lists all faults.
    """
    tolerances = tolerances_of(labels, tolerance_mm=tolerance_mm, label_tolerances_mm=label_tolerances_mm)
    _check(prediction, reference, spacing=spacing, labels=labels, tolerances=tolerances)
    ignored = None if ignore_label is None else reference == ignore_label
    maps = _LabelMaps(_clear(prediction, ignored), _clear(reference, ignored))
    overlaps = count_overlaps(*maps.crop(range(1, MAX_VALUE + 1)), labels=labels)
    surfaces = _Surfaces(tuple(spacing), distance_unit) if surface else None
    scores = {}
    for name, values in labels.items():
        agreement = _score_label(
            name,
            [_mask(label_map, values) for label_map in maps.crop(values)],
            overlap=overlaps[name],
            rule=METRIC_RULES[rule],
            surfaces=surfaces,
            tolerance_mm=tolerances[name],
        )
        scores[name] = _with_volumes(agreement, overlaps[name], spacing)
    return scores


@dataclass(frozen=True)
class _Surfaces:
    """Spacing and unit with which surface distances are computed."""

    spacing: tuple[float, ...]
    distance_unit: DistanceUnit

    def add(
        self, agreement: Agreement, masks: Sequence[Bool[np.ndarray, "*box"]], *, tolerance_mm: float
    ) -> Agreement:
        """Add the surface scores of two nonempty masks to their agreement."""
        prediction, reference = masks
        steps = self.spacing if self.distance_unit == "mm" else (1.0,) * reference.ndim
        distances = surface_distances(prediction, reference, spacing=steps)
        nsd = surface_dice(prediction, reference, spacing=self.spacing, tolerance_mm=tolerance_mm)
        return replace(agreement, hd95=distances.hd95, asd=distances.asd, nsd=nsd)


def _score_label(
    name: str,
    masks: Sequence[Bool[np.ndarray, "*box"]],
    *,
    overlap: Overlap,
    rule: MetricRule,
    surfaces: _Surfaces | None,
    tolerance_mm: float,
) -> Agreement:
    """Score prediction and reference of one label, cropped to a common box."""
    if rule.scores_in_z_range(name) and masks[1].ndim == 3 and overlap.reference:
        masks, overlap = _in_z_range(masks)
        if not overlap.reference:
            return NOT_COUNTED
    if not (overlap.prediction and overlap.reference):
        by_rule = rule.apply(prediction_voxels=overlap.prediction, reference_voxels=overlap.reference)
        return by_rule if surfaces else replace(by_rule, hd95=None, asd=None, nsd=None)
    agreement = replace(NOT_COUNTED, dice=overlap.dice)
    return surfaces.add(agreement, masks, tolerance_mm=tolerance_mm) if surfaces else agreement


def _in_z_range(
    masks: Sequence[Bool[np.ndarray, "z y x"]],
) -> tuple[list[Bool[np.ndarray, "range y x"]], Overlap]:
    """Crop masks to the reference's slices without its last, as published."""
    slices = np.flatnonzero(masks[1].any(axis=(1, 2)))
    cut = [mask[slices[0] : slices[-1]] for mask in masks]
    counts = (np.count_nonzero(mask) for mask in (*cut, cut[0] & cut[1]))
    return cut, Overlap(*map(int, counts))


class _LabelMaps:
    """A prediction and its reference, with the bounding box of every value."""

    def __init__(
        self, prediction: UInt8[np.ndarray, "*spatial"], reference: UInt8[np.ndarray, "*spatial"]
    ) -> None:
        self._maps = (prediction, reference)
        self._boxes = [ndimage.find_objects(label_map) for label_map in self._maps]

    def crop(self, values: Iterable[int]) -> tuple[UInt8[np.ndarray, "*box"], UInt8[np.ndarray, "*box"]]:
        """Crop both label maps to the bounding box of some values.

        The box is empty if neither map has any of them.
        """
        chosen = set(values)
        boxes = [
            box
            for of_map in self._boxes
            for value, box in enumerate(of_map, start=1)
            if box is not None and value in chosen
        ]
        prediction, reference = self._maps
        joint = tuple(
            slice(
                min((box[axis].start for box in boxes), default=0),
                max((box[axis].stop for box in boxes), default=0),
            )
            for axis in range(prediction.ndim)
        )
        return prediction[joint], reference[joint]


def _check(
    prediction: Integer[np.ndarray, "*spatial"],
    reference: Integer[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
    labels: Mapping[str, tuple[int, ...]],
    tolerances: Mapping[str, float],
) -> None:
    """Raise one InputError for all faults of the arguments."""
    faults = _array_faults(prediction, reference)
    if len(spacing) != reference.ndim or not all(0 < size < np.inf for size in spacing):
        faults.append(
            f"spacing: expected a positive number of mm for each of {reference.ndim} axes, got {tuple(spacing)}"
        )
    if not labels:
        faults.append("labels are empty, name at least one")
    for name, values in labels.items():
        if not values or not all(0 < value <= MAX_VALUE for value in values):
            faults.append(f"label {name!r}: expected at least one value from 1 to {MAX_VALUE}, got {values}")
    for name, tolerance in tolerances.items():
        if name not in labels:
            faults.append(
                f"tolerance of {name!r}: expected the name of a label, the labels are {', '.join(labels)}"
            )
        if not 0 <= tolerance < np.inf:
            faults.append(
                f"tolerance of {name!r}: expected a finite number of at least 0, got {tolerance} mm"
            )
    if faults:
        raise InputError("; ".join(faults))


def _array_faults(
    prediction: Integer[np.ndarray, "*spatial"], reference: Integer[np.ndarray, "*spatial"]
) -> list[str]:
    """Return the faults of the shapes and values of two label maps."""
    faults = []
    if prediction.shape != reference.shape or reference.ndim not in (2, 3):
        faults.append(
            f"shapes: expected equal shapes of two or three axes, got prediction {prediction.shape} and reference "
            f"{reference.shape}"
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iub":
            faults.append(f"{name}: expected integers in a label map, got {array.dtype}")
        elif array.dtype != np.uint8 and array.size and (array.min() < 0 or array.max() > MAX_VALUE):
            faults.append(
                f"{name}: expected labels from 0 to {MAX_VALUE}, got values from {array.min()} to {array.max()}"
            )
    return faults


def _clear(
    label_map: Integer[np.ndarray, "*spatial"], ignored: Bool[np.ndarray, "*spatial"] | None
) -> UInt8[np.ndarray, "*spatial"]:
    """Return a label map as uint8, with background at ignored voxels."""
    values = label_map.astype(np.uint8, copy=False)
    return values if ignored is None else np.where(ignored, np.uint8(0), values)


def _mask(label_map: UInt8[np.ndarray, "*spatial"], values: tuple[int, ...]) -> Bool[np.ndarray, "*spatial"]:
    """Return the mask of the voxels with one of the values."""
    return label_map == values[0] if len(values) == 1 else np.isin(label_map, values)


def _with_volumes(agreement: Agreement, overlap: Overlap, spacing: Sequence[float]) -> LabelScores:
    voxel_ml = float(np.prod(spacing)) / 1000 if len(spacing) == 3 else None
    return LabelScores(
        dice=agreement.dice,
        hd95=agreement.hd95,
        asd=agreement.asd,
        nsd=agreement.nsd,
        volume_ml=None if voxel_ml is None else overlap.prediction * voxel_ml,
        reference_volume_ml=None if voxel_ml is None else overlap.reference * voxel_ml,
    )
