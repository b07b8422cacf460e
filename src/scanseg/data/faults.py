"""Say all that is wrong in one error."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.counts import first_lines
from scanseg.errors import FaultsError


def refuse_faults(where: Path | str, faults: Sequence[str]) -> None:
    """Raise one error for all faults, if there are any.

    Args:
        where: File, folder or data set in which they are.
        faults: Each says what is wrong, with values, and what to do.

    Raises:
        FaultsError: There are faults; one is said in one line, several in a line each, of many the first twenty.
    """
    if len(faults) == 1:
        raise FaultsError(f"{where}: {faults[0]}", faults)
    if faults:
        lines = [f"{where}: {len(faults)} faults", *first_lines(faults)]
        raise FaultsError("\n  ".join(lines), faults)
