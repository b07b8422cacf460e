"""Metric rules by name: what a label scores where it is empty, and in which slices some labels are scored.

A value that a rule does not define is not counted (None).
"""

import math
from collections.abc import Set
from dataclasses import dataclass

from scanseg.specs import RuleName, canonical_label


@dataclass(frozen=True)
class Agreement:
    """How well two masks of one label agree; None is not counted, or was not asked for."""

    dice: float | None
    hd95: float | None
    """`inf` is counted apart and left out of means."""
    asd: float | None
    """`inf` is left out of means."""
    nsd: float | None


NOT_COUNTED = Agreement(dice=None, hd95=None, asd=None, nsd=None)
_MISSED = Agreement(dice=0.0, hd95=math.inf, asd=math.inf, nsd=0.0)


@dataclass(frozen=True)
class MetricRule:
    """Scores for the three ways in which masks are empty."""

    description: str
    both_empty: Agreement
    reference_empty: Agreement
    """The prediction has the label, the reference has not."""
    prediction_empty: Agreement
    """The reference has the label, the prediction has not."""
    z_range_labels: Set[str] = frozenset()
    """Labels, as `canonical_label` writes them, scored only from the reference's first slice along z to the one
    before its last, in images of three axes."""

    def apply(self, *, prediction_voxels: int, reference_voxels: int) -> Agreement:
        """Return the scores for masks of which at least one is empty."""
        if prediction_voxels:
            return self.reference_empty
        return self.prediction_empty if reference_voxels else self.both_empty

    def scores_in_z_range(self, label: str) -> bool:
        """Whether a label is scored in the slices of its reference alone."""
        return canonical_label(label) in self.z_range_labels


def _brats(worst_distance: float) -> MetricRule:
    """Return the rule of the BraTS challenges with the distance that a missed region is given."""
    missed = Agreement(dice=0.0, hd95=worst_distance, asd=None, nsd=None)
    return MetricRule(
        description=f"BraTS: both empty Dice 1, HD95 0; one empty Dice 0, HD95 {worst_distance:g}",
        both_empty=Agreement(dice=1.0, hd95=0.0, asd=None, nsd=None),
        reference_empty=missed,
        prediction_empty=missed,
    )


METRIC_RULES: dict[RuleName, MetricRule] = {
    "skip": MetricRule(
        description="nnU-Net, our default: both empty is not counted; one empty Dice 0, NSD 0, distances infinite",
        both_empty=NOT_COUNTED,
        reference_empty=_MISSED,
        prediction_empty=_MISSED,
    ),
    "transunet": MetricRule(
        description="MSVM-UNet's tables: reference alone empty Dice 1, else 0; HD95 0 where either is empty",
        both_empty=Agreement(dice=0.0, hd95=0.0, asd=None, nsd=None),
        reference_empty=Agreement(dice=1.0, hd95=0.0, asd=None, nsd=None),
        prediction_empty=Agreement(dice=0.0, hd95=0.0, asd=None, nsd=None),
    ),
    "umamba": MetricRule(
        description="xLSTM-UNet's tables: both empty Dice and NSD 1, one empty 0; aorta, IVC and esophagus only in "
        "the reference's slices but the last",
        both_empty=Agreement(dice=1.0, hd95=None, asd=None, nsd=1.0),
        reference_empty=Agreement(dice=0.0, hd95=None, asd=None, nsd=0.0),
        prediction_empty=Agreement(dice=0.0, hd95=None, asd=None, nsd=0.0),
        z_range_labels=frozenset(map(canonical_label, ("aorta", "IVC", "esophagus"))),
    ),
    "brats": _brats(374.0),
    "brats-segmamba": _brats(50.0),
}
"""The rules by name. Source: the papers and challenges that scored with them; `docs/experiments.md` of the design."""
