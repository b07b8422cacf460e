"""Agreement of predicted and reference volumes.

Source: Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scanseg.specs import Report

_DEVIATIONS = 1.96
"""Standard deviations of the limits of agreement, which hold 95 % of normal differences."""


@dataclass(frozen=True)
class Agreement:
    """Bias and limits of agreement of the differences, predicted minus reference."""

    num_cases: int
    bias: float
    """Mean difference."""
    limits: tuple[float, float] | None
    """Bias minus and plus 1.96 standard deviations. `None`: fewer than two cases."""


def measure_agreement(pairs: Float[np.ndarray, "case 2"]) -> Agreement:
    """Measure the agreement of volumes.

    Args:
        pairs: Reference and predicted volume of each case, at least one.
    """
    differences = pairs[:, 1] - pairs[:, 0]
    bias = float(differences.mean())
    if len(pairs) < 2:
        return Agreement(len(pairs), bias, None)
    spread = _DEVIATIONS * float(differences.std(ddof=1))
    return Agreement(len(pairs), bias, (bias - spread, bias + spread))


def volumes_of(report: Report) -> dict[str, Float[np.ndarray, "case 2"]]:
    """Return reference and predicted volumes in ml of all cases, by label.

    Labels without volumes, such as labels of pictures, are left out.

    Args:
        report: The scores.
    """
    volumes = {}
    for name in report.labels:
        scores = [case.labels[name] for case in report.cases]
        pairs = [
            (each.reference_volume_ml, each.volume_ml)
            for each in scores
            if each.reference_volume_ml is not None and each.volume_ml is not None
        ]
        if pairs:
            volumes[name] = np.array(pairs, float)
    return volumes
