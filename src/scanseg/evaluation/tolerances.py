"""Tolerances of surface Dice (NSD): one for all labels, by name, or those of a published protocol."""

from collections.abc import Iterable, Mapping, Sequence

from scanseg.errors import UsageError
from scanseg.specs import canonical_label

TOLERANCE_MM = 2.0
"""Distance, in mm, up to which surfaces agree, unless another is asked for; in pixels for raster images."""

_ABDOMEN_MM = {
    "liver": 5.0,
    "right kidney": 3.0,
    "left kidney": 3.0,
    "spleen": 3.0,
    "pancreas": 5.0,
    "aorta": 2.0,
    "IVC": 2.0,
    "right adrenal": 2.0,
    "left adrenal": 2.0,
    "gallbladder": 2.0,
    "esophagus": 3.0,
    "stomach": 5.0,
    "duodenum": 7.0,
}

TOLERANCE_PRESETS: dict[str, dict[str, float]] = {"abdomen": _ABDOMEN_MM}
"""Tolerances in mm of organs by the name of their protocol; `abdomen` is behind xLSTM-UNet's tables."""


def tolerances_of(
    labels: Iterable[str], *, tolerance_mm: float, label_tolerances_mm: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the tolerance in mm of every label.

    Args:
        labels: Names of the labels.
        tolerance_mm: For those that have none of their own.
        label_tolerances_mm: By name.
    """
    return dict.fromkeys(labels, tolerance_mm) | dict(label_tolerances_mm or {})


def preset_tolerances(preset: str, labels: Sequence[str]) -> dict[str, float]:
    """Return the tolerances in mm that a protocol has for labels; names may be spelt in several ways.

    Args:
        preset: Name in `TOLERANCE_PRESETS`.
        labels: Names of the labels.

    Returns:
        Tolerance by label, for the labels that the protocol knows.

    Raises:
        UsageError: The protocol is unknown, or knows none of the labels.
    """
    if preset not in TOLERANCE_PRESETS:
        raise UsageError(f"tolerances {preset!r} are unknown; choose one of {', '.join(TOLERANCE_PRESETS)}")
    known = {canonical_label(name): tolerance for name, tolerance in TOLERANCE_PRESETS[preset].items()}
    found = {label: known[canonical_label(label)] for label in labels if canonical_label(label) in known}
    if not found:
        raise UsageError(
            f"tolerances {preset!r} are for {', '.join(TOLERANCE_PRESETS[preset])}, of which the labels "
            f"{', '.join(labels)} are none; give them by name"
        )
    return found


def parse_tolerances(words: Sequence[str]) -> tuple[float, dict[str, float], str | None]:
    """Read tolerances as the command line has them.

    Args:
        words: Each a number of mm for all labels, `LABEL=MM`, or the name of a protocol.

    Returns:
        The tolerance for all labels, those by name, and the protocol if one is named.

    Raises:
        UsageError: A word is none of these, or given twice; all are named.
    """
    everywhere: list[float] = []
    by_name: dict[str, float] = {}
    presets: list[str] = []
    faults = []
    for word in words:
        name, equals, value = word.rpartition("=")
        number = _number(value)
        if number is None and not equals and word in TOLERANCE_PRESETS:
            presets.append(word)
        elif number is None or (equals and not name):
            faults.append(
                f"{word!r} is no number of mm, no LABEL=MM, and none of {', '.join(TOLERANCE_PRESETS)}"
            )
        elif equals and name in by_name:
            faults.append(f"a tolerance of {name!r} is given twice")
        elif equals:
            by_name[name] = number
        else:
            everywhere.append(number)
    if len(everywhere) > 1 or len(presets) > 1:
        faults.append("give one tolerance for all labels, and one protocol, at most")
    if faults:
        raise UsageError(f"tolerances: {'; '.join(faults)}")
    return (everywhere or [TOLERANCE_MM])[0], by_name, presets[0] if presets else None


def _number(word: str) -> float | None:
    """Return a word as a number of 0 or more; None where it is none."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
