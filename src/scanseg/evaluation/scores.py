"""Scores of one case: Dice, HD95, NSD and volumes of every label."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from scipy import ndimage

from scanseg.errors import InputError
from scanseg.evaluation.overlap import Overlap, count_overlaps
from scanseg.evaluation.rules import EMPTY_RULES, Agreement
from scanseg.evaluation.surface import hausdorff_95, surface_dice
from scanseg.specs import EmptyRuleName

TOLERANCE_MM = 2.0
"""Distance, in mm, up to which surfaces agree, unless another is asked for."""

MAX_VALUE = 255
"""Highest value of a label."""


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label in one case."""

    dice: float | None
    """0 to 1; None: not counted."""
    hd95_mm: float | None
    """None: not counted, or not asked for; `inf`, by the rule `skip`: only one of the masks is empty."""
    nsd: float | None
    """0 to 1; None: not counted, or not asked for."""
    volume_ml: float | None
    """Volume of the prediction; None for images of two axes."""
    reference_volume_ml: float | None
    """Volume of the reference; None for images of two axes."""


def score_case(
    prediction: Integer[np.ndarray, "*spatial"],
    reference: Integer[np.ndarray, "*spatial"],
    *,
    spacing: Sequence[float],
    labels: Mapping[str, tuple[int, ...]],
    ignore_label: int | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    label_tolerances_mm: Mapping[str, float] | None = None,
    rule: EmptyRuleName = "skip",
    surface: bool = True,
) -> dict[str, LabelScores]:
    """Score a predicted label map against its reference.

    Args:
        prediction: Label map (z, y, x) or (y, x), values 0 to 255.
        reference: Label map of the same shape.
        spacing: Millimetres per voxel along the axes (1 for pixels).
        labels: Name of each label, or region, to the values (1 to 255) that make it up.
        ignore_label: Value of the reference; where it stands, both label maps count as background.
        tolerance_mm: Distance, in mm, up to which surfaces agree (NSD).
        label_tolerances_mm: Other tolerances, for labels by name.
        rule: Name of the rule for empty masks.
        surface: Whether HD95 and NSD are computed; they take most of the time.

    Returns:
        Scores of every label by name.

    Raises:
        InputError: The arrays or the labels cannot be scored; all faults are in one message.
    """
    tolerances = tolerances_of(labels, tolerance_mm=tolerance_mm, label_tolerances_mm=label_tolerances_mm)
    _check(prediction, reference, spacing=spacing, labels=labels, tolerances=tolerances)
    ignored = None if ignore_label is None else reference == ignore_label
    maps = _LabelMaps(_clear(prediction, ignored), _clear(reference, ignored))
    overlaps = count_overlaps(*maps.crop(range(1, MAX_VALUE + 1)), labels=labels)
    scores = {}
    for name, values in labels.items():
        overlap = overlaps[name]
        agreement = _agreement(overlap, rule=rule, surface=surface)
        if surface and overlap.prediction and overlap.reference:
            masks = [_mask(label_map, values) for label_map in maps.crop(values)]
            agreement = replace(
                agreement,
                hd95_mm=hausdorff_95(*masks, spacing=spacing),
                nsd=surface_dice(*masks, spacing=spacing, tolerance_mm=tolerances[name]),
            )
        scores[name] = _with_volumes(agreement, overlap, spacing)
    return scores


def tolerances_of(
    labels: Iterable[str], *, tolerance_mm: float, label_tolerances_mm: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the tolerance in mm of every label."""
    return dict.fromkeys(labels, tolerance_mm) | dict(label_tolerances_mm or {})


class _LabelMaps:
    """A prediction and its reference, with the box of every value in each."""

    def __init__(
        self, prediction: UInt8[np.ndarray, "*spatial"], reference: UInt8[np.ndarray, "*spatial"]
    ) -> None:
        self._maps = (prediction, reference)
        self._boxes = [ndimage.find_objects(label_map) for label_map in self._maps]

    def crop(self, values: Iterable[int]) -> tuple[UInt8[np.ndarray, "*box"], UInt8[np.ndarray, "*box"]]:
        """Cut both label maps to the smallest box that holds some values of both; it may be empty."""
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
    """Raise everything that hinders scoring."""
    faults = []
    if prediction.shape != reference.shape or reference.ndim not in (2, 3):
        faults.append(
            f"the prediction has shape {prediction.shape}, the reference {reference.shape}; they must have one shape "
            "of two or three axes"
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iub":
            faults.append(f"the {name} holds {array.dtype}; label maps hold integers")
        elif array.dtype != np.uint8 and array.size and (array.min() < 0 or array.max() > MAX_VALUE):
            faults.append(
                f"the {name} holds values {array.min()} to {array.max()}; labels are 0 to {MAX_VALUE}"
            )
    if len(spacing) != reference.ndim or not all(0 < size < np.inf for size in spacing):
        faults.append(
            f"spacing {tuple(spacing)} must be a positive number of mm for each of {reference.ndim} axes"
        )
    if not labels:
        faults.append("labels are empty; name at least one")
    for name, values in labels.items():
        if not values or not all(0 < value <= MAX_VALUE for value in values):
            faults.append(f"label {name!r} has the values {values}; give at least one from 1 to {MAX_VALUE}")
    for name, tolerance in tolerances.items():
        if name not in labels:
            faults.append(
                f"a tolerance is given for {name!r}, which is no label; the labels are {', '.join(labels)}"
            )
        if not 0 <= tolerance < np.inf:
            faults.append(f"tolerance {tolerance} mm of {name!r} must not be negative or infinite")
    if faults:
        raise InputError("; ".join(faults))


def _clear(
    label_map: Integer[np.ndarray, "*spatial"], ignored: Bool[np.ndarray, "*spatial"] | None
) -> UInt8[np.ndarray, "*spatial"]:
    """Return a label map as uint8 with background where voxels are ignored."""
    values = label_map.astype(np.uint8, copy=False)
    return values if ignored is None else np.where(ignored, np.uint8(0), values)


def _mask(label_map: UInt8[np.ndarray, "*spatial"], values: tuple[int, ...]) -> Bool[np.ndarray, "*spatial"]:
    """Return where a label map has one of the values."""
    return label_map == values[0] if len(values) == 1 else np.isin(label_map, values)


def _agreement(overlap: Overlap, *, rule: EmptyRuleName, surface: bool) -> Agreement:
    """Return what the voxel counts tell: Dice, or what the rule gives for empty masks."""
    if overlap.prediction and overlap.reference:
        return Agreement(dice=overlap.dice, hd95_mm=None, nsd=None)
    by_rule = EMPTY_RULES[rule].apply(
        prediction_voxels=overlap.prediction, reference_voxels=overlap.reference
    )
    return by_rule if surface else replace(by_rule, hd95_mm=None, nsd=None)


def _with_volumes(agreement: Agreement, overlap: Overlap, spacing: Sequence[float]) -> LabelScores:
    voxel_ml = float(np.prod(spacing)) / 1000 if len(spacing) == 3 else None
    return LabelScores(
        dice=agreement.dice,
        hd95_mm=agreement.hd95_mm,
        nsd=agreement.nsd,
        volume_ml=None if voxel_ml is None else overlap.prediction * voxel_ml,
        reference_volume_ml=None if voxel_ml is None else overlap.reference * voxel_ml,
    )
