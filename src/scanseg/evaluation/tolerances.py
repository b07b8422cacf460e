"""Tolerances of surface Dice (NSD): common, by label, or by protocol."""

from collections.abc import Iterable, Mapping, Sequence

from scanseg.errors import UsageError
from scanseg.specs import canonical_label

TOLERANCE_MM = 2.0
"""Default distance in mm up to which surfaces agree, in pixels for raster images."""

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
"""Tolerances in mm of organs, by the name of the protocol. xLSTM-UNet's tables use `abdomen`."""


def tolerances_of(
    labels: Iterable[str], *, tolerance_mm: float, label_tolerances_mm: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the tolerance in mm of every label.

    Args:
        labels: Names of the labels.
        tolerance_mm: Tolerance of labels that are not in `label_tolerances_mm`.
        label_tolerances_mm: Tolerances of single labels, by name.
    """
    return dict.fromkeys(labels, tolerance_mm) | dict(label_tolerances_mm or {})


def preset_tolerances(preset: str, labels: Sequence[str]) -> dict[str, float]:
    """Return the tolerances in mm of labels in a published protocol.

    Args:
        preset: Name of the protocol in `TOLERANCE_PRESETS`.
        labels: Names of the labels. Several spellings are recognized, see `canonical_label`.

    Returns:
        Tolerances by label. Labels that the protocol does not list are left out.

    Raises:
        UsageError: The protocol is unknown, or lists none of the labels.
    """
    if preset not in TOLERANCE_PRESETS:
        raise UsageError(f"tolerances {preset!r} are unknown. Choose one of {', '.join(TOLERANCE_PRESETS)}.")
    known = {canonical_label(name): tolerance for name, tolerance in TOLERANCE_PRESETS[preset].items()}
    found = {label: known[canonical_label(label)] for label in labels if canonical_label(label) in known}
    if not found:
        raise UsageError(
            f"tolerances {preset!r}: expected a label among {', '.join(TOLERANCE_PRESETS[preset])}, got "
            f"{', '.join(labels)}. Give tolerances by label."
        )
    return found


def parse_tolerances(words: Sequence[str]) -> tuple[float, dict[str, float], str | None]:
    """Parse tolerances from the command line.

    Args:
        words: Tolerances, each a number of mm for all labels, `LABEL=MM`, or the name of a protocol.

    Returns:
        The tolerance for all labels in mm, the tolerances by label in mm, and the protocol if one is named.

    Raises:
        UsageError: Words have another form, or repeat a tolerance. The message lists all of them.
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
                f"expected a number of mm, LABEL=MM, or one of {', '.join(TOLERANCE_PRESETS)}, got {word!r}"
            )
        elif equals and name in by_name:
            faults.append(f"a tolerance of {name!r} is given twice")
        elif equals:
            by_name[name] = number
        else:
            everywhere.append(number)
    if len(everywhere) > 1 or len(presets) > 1:
        faults.append("give at most one tolerance for all labels, and at most one protocol")
    if faults:
        raise UsageError(f"tolerances: {'; '.join(faults)}")
    return (everywhere or [TOLERANCE_MM])[0], by_name, presets[0] if presets else None


def _number(word: str) -> float | None:
    """Parse a finite number of at least 0, or return `None`."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
