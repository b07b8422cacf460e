"""Metric rules: scores of empty labels, and slices that are scored.

A score that a rule does not define is not counted (`None`).
"""

import math
from collections.abc import Set
from dataclasses import dataclass

from scanseg.specs import RuleName, canonical_label


@dataclass(frozen=True)
class Agreement:
    """Agreement of two masks. `None`: not counted, or not computed."""

    dice: float | None
    hd95: float | None
    """`inf` is counted separately and left out of means."""
    asd: float | None
    """`inf` is left out of means."""
    nsd: float | None


NOT_COUNTED = Agreement(dice=None, hd95=None, asd=None, nsd=None)
_MISSED = Agreement(dice=0.0, hd95=math.inf, asd=math.inf, nsd=0.0)


@dataclass(frozen=True)
class MetricRule:
    """Scores of the three combinations with an empty mask."""

    description: str
    both_empty: Agreement
    reference_empty: Agreement
    """Scores if only the prediction has the label."""
    prediction_empty: Agreement
    """Scores if only the reference has the label."""
    z_range_labels: Set[str] = frozenset()
    """Labels that are scored only in the slices of their reference along z, without its last slice.

    The names are in the form of `canonical_label`. Images of two axes are scored whole.
    """

    def apply(self, *, prediction_voxels: int, reference_voxels: int) -> Agreement:
        """Return the scores of two masks, at least one of them empty."""
        if prediction_voxels:
            return self.reference_empty
        return self.prediction_empty if reference_voxels else self.both_empty

    def scores_in_z_range(self, label: str) -> bool:
        """Return whether a label is scored only in its reference's slices."""
        return canonical_label(label) in self.z_range_labels


def _brats(worst_distance: float) -> MetricRule:
    """Return the rule of the BraTS challenges.

    Args:
        worst_distance: HD95 of a missed region.
    """
    missed = Agreement(dice=0.0, hd95=worst_distance, asd=None, nsd=None)
    return MetricRule(
        description=f"BraTS: both empty Dice 1, HD95 0; one empty Dice 0, HD95 {worst_distance:g}",
        both_empty=Agreement(dice=1.0, hd95=0.0, asd=None, nsd=None),
        reference_empty=missed,
        prediction_empty=missed,
    )


METRIC_RULES: dict[RuleName, MetricRule] = {
    "skip": MetricRule(
        description="nnU-Net, the default: both empty is not counted; one empty Dice 0, NSD 0, distances infinite",
        both_empty=NOT_COUNTED,
        reference_empty=_MISSED,
        prediction_empty=_MISSED,
    ),
    "transunet": MetricRule(
        description="MSVM-UNet's tables: only reference empty Dice 1, else 0; HD95 0 if either is empty",
        both_empty=Agreement(dice=0.0, hd95=0.0, asd=None, nsd=None),
        reference_empty=Agreement(dice=1.0, hd95=0.0, asd=None, nsd=None),
        prediction_empty=Agreement(dice=0.0, hd95=0.0, asd=None, nsd=None),
    ),
    "umamba": MetricRule(
        description="xLSTM-UNet's tables: both empty Dice and NSD 1, one empty 0; aorta, IVC and esophagus only in "
        "the reference's slices except the last",
        both_empty=Agreement(dice=1.0, hd95=None, asd=None, nsd=1.0),
        reference_empty=Agreement(dice=0.0, hd95=None, asd=None, nsd=0.0),
        prediction_empty=Agreement(dice=0.0, hd95=None, asd=None, nsd=0.0),
        z_range_labels=frozenset(map(canonical_label, ("aorta", "IVC", "esophagus"))),
    ),
    "brats": _brats(374.0),
    "brats-segmamba": _brats(50.0),
}
"""Metric rules by name.

Source: the papers and challenges that scored with them, see `docs/experiments.md` of the design.
"""
