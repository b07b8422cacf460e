"""What a label scores where it is empty in the prediction, in the reference, or in both."""

import math
from dataclasses import dataclass

from scanseg.specs import EmptyRuleName


@dataclass(frozen=True)
class Agreement:
    """How well two masks of one label agree; None is not counted, or was not asked for."""

    dice: float | None
    hd95_mm: float | None
    """`inf` is counted apart and left out of means."""
    nsd: float | None


@dataclass(frozen=True)
class EmptyRule:
    """Scores for the three ways in which masks are empty."""

    both_empty: Agreement
    reference_empty: Agreement
    """The prediction has the label, the reference has not."""
    prediction_empty: Agreement
    """The reference has the label, the prediction has not."""

    def apply(self, *, prediction_voxels: int, reference_voxels: int) -> Agreement:
        """Return the scores for masks of which at least one is empty."""
        if prediction_voxels:
            return self.reference_empty
        return self.prediction_empty if reference_voxels else self.both_empty


_NOT_COUNTED = Agreement(dice=None, hd95_mm=None, nsd=None)
_MISSED = Agreement(dice=0.0, hd95_mm=math.inf, nsd=0.0)

EMPTY_RULES: dict[EmptyRuleName, EmptyRule] = {
    "skip": EmptyRule(both_empty=_NOT_COUNTED, reference_empty=_MISSED, prediction_empty=_MISSED),
}
"""The rules by name. `skip` is our default, and nnU-Net's."""
