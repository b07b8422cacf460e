"""Unusual predictions among many, without references.

A value is unusual if its modified z-score is above 3.5. Source: Iglewicz and Hoaglin 1993, "How to Detect and Handle
Outliers", section 3. Small deviations never count, so equal values do not make every other value unusual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanseg.reports.evidence import Shape

LEAST_CASES = 5
"""Cases from which on values are compared."""
_HIGHEST_SCORE = 3.5
_SCALE = 1.4826
"""Standard deviations per median absolute deviation, for normal values."""
_LEAST_SPREAD = {"volume": 0.05, "components": 0.5, "position": 0.01}
"""Smallest spread of the logarithm of volumes, of numbers of components, and of positions in image sizes."""
_USUAL_SHARE = 0.8
"""Share of cases with a label from which on its absence is unusual."""


@dataclass(frozen=True)
class Outlier:
    """An unusual property of a case."""

    case: str
    label: str
    reason: str
    score: float
    """Modified z-score, or infinity."""


def find_outliers(
    shapes: Mapping[str, Mapping[str, Shape | None]],
    *,
    voxel_ml: Mapping[str, float | None],
    trained: Mapping[str, tuple[float, float]] | None = None,
) -> list[Outlier]:
    """Find cases with unusual volume, components or position of a label.

    Args:
        shapes: Shape of each label by case. `None`: the prediction lacks the label.
        voxel_ml: Volume of a voxel in ml by case. `None`: a picture, whose size is in pixels.
        trained: Smallest and largest reference volume in ml of each label in the model's validation cases. `None`: not
            known.

    Returns:
        Outliers, the most unusual first.
    """
    labels = {name for case in shapes.values() for name in case}
    found: list[Outlier] = []
    for label in sorted(labels):
        present = {
            case: shape for case, of_case in shapes.items() if (shape := of_case.get(label)) is not None
        }
        sizes = {case: shape.num_voxels * (voxel_ml[case] or 1.0) for case, shape in present.items()}
        unit = "ml" if all(voxel_ml[case] is not None for case in present) else "pixels"
        if trained is not None and label in trained:
            found += _outside(label, sizes, trained[label])
        if len(shapes) < LEAST_CASES:
            continue
        if len(present) >= _USUAL_SHARE * len(shapes):
            found += [
                Outlier(case, label, f"no voxel, but {len(present)} of {len(shapes)} cases have it", np.inf)
                for case in shapes
                if case not in present
            ]
        if len(present) >= LEAST_CASES:
            found += _unusual_values(label, present, sizes, unit)
    return sorted(found, key=lambda outlier: (-outlier.score, outlier.case, outlier.label))


def modified_scores(values: Sequence[float], *, least_spread: float) -> np.ndarray:
    """Return the modified z-score of each value.

    It is the distance from the median in robust standard deviations.

    Args:
        values: The values.
        least_spread: Smallest standard deviation.
    """
    array = np.asarray(values, float)
    distances = np.abs(array - np.median(array))
    return distances / max(_SCALE * float(np.median(distances)), least_spread)


def _outside(label: str, sizes: Mapping[str, float], trained: tuple[float, float]) -> list[Outlier]:
    """Return cases with a volume unlike the references of training."""
    low, high = trained
    return [
        Outlier(
            case,
            label,
            f"volume {size:.4g} ml, unlike the references of training ({low:.4g} to {high:.4g} ml)",
            float(max(low / max(size, 1e-9), size / max(high, 1e-9))),
        )
        for case, size in sizes.items()
        if size < low / 2 or size > 2 * high
    ]


def _unusual_values(
    label: str, present: Mapping[str, Shape], sizes: Mapping[str, float], unit: str
) -> list[Outlier]:
    """Return cases with unusual volume, components or position."""
    names = list(present)
    median = float(np.median(list(sizes.values())))
    found: list[Outlier] = []

    def compare(kind: str, values: Sequence[float], reasons: Sequence[str]) -> None:
        scores = modified_scores(values, least_spread=_LEAST_SPREAD[kind])
        found.extend(
            Outlier(name, label, reason, float(score))
            for name, reason, score in zip(names, reasons, scores, strict=True)
            if score > _HIGHEST_SCORE
        )

    compare(
        "volume",
        [float(np.log(sizes[name])) for name in names],
        [f"volume {sizes[name]:.4g} {unit}, median {median:.4g} {unit}" for name in names],
    )
    components = [present[name].num_components for name in names]
    usual = float(np.median(components))
    compare("components", components, [f"{count} components, median {usual:g}" for count in components])
    for axis in range(len(present[names[0]].position)):
        positions = [present[name].position[axis] for name in names]
        middle = float(np.median(positions))
        letter = "zyx"[axis - len(present[names[0]].position)]
        compare(
            "position",
            positions,
            [f"centre at {100 * each:.0f} % of {letter}, median {100 * middle:.0f} %" for each in positions],
        )
    return found
