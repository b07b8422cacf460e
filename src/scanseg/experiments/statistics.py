"""Compare arms case by case, and with the spread over seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, variance

import numpy as np

from scanseg.specs import ArmComparison

CaseDice = Mapping[str, float]
"""Mean Dice of each case, over its labels and over seeds."""


def compare(
    arm: str,
    baseline: str,
    *,
    cases: tuple[CaseDice, CaseDice],
    by_seed: tuple[Sequence[float], Sequence[float]],
) -> ArmComparison:
    """Compare an arm with the baseline.

    Args:
        arm: Name of the arm.
        baseline: Name of the baseline.
        cases: Dice of each case, of the arm and of the baseline.
        by_seed: Mean Dice of each seed, of the arm and of the baseline.

    Returns:
        The comparison, without the corrected p-value.
    """
    ours, theirs = by_seed
    common = sorted(cases[0].keys() & cases[1].keys())
    differences = np.array([cases[0][name] - cases[1][name] for name in common])
    gain = mean(ours) - mean(theirs) if ours and theirs else None
    pooled, exceeds = None, None
    if gain is not None and len(ours) > 1 and len(theirs) > 1:
        spreads = variance(ours), variance(theirs)
        pooled = math.sqrt(mean(spreads))
        error = math.sqrt(spreads[0] / len(ours) + spreads[1] / len(theirs))
        exceeds = abs(gain) > 2 * error
    return ArmComparison(
        arm=arm,
        baseline=baseline,
        gain=gain,
        seed_std=pooled,
        exceeds_seeds=exceeds,
        num_cases=len(common),
        num_better=int((differences > 0).sum()),
        p_value=_signed_rank(differences),
        p_corrected=None,
    )


def correct(comparisons: Sequence[ArmComparison]) -> tuple[ArmComparison, ...]:
    """Correct p-values for the number of comparisons.

    Source: Holm 1979. The i-th smallest of m values is multiplied by m - i + 1. No value falls below a previous one.

    Args:
        comparisons: All comparisons of one grid of trainings.

    Returns:
        The comparisons with corrected p-values.
    """
    tested = [number for number, one in enumerate(comparisons) if one.p_value is not None]
    order = sorted(tested, key=lambda number: comparisons[number].p_value or 0.0)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (comparisons[number].p_value or 0.0) * (len(order) - rank)))
        corrected[number] = largest
    return tuple(
        one.model_copy(update={"p_corrected": corrected.get(number)})
        for number, one in enumerate(comparisons)
    )


def _signed_rank(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test.

    Args:
        differences: Difference of each case, with axis (case).

    Returns:
        The p-value. 1 if no case differs. `None` with fewer than two cases.
    """
    from scipy.stats import wilcoxon

    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)
