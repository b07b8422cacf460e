"""Say all that is wrong in one error."""

from collections.abc import Sequence
from pathlib import Path

from scanseg.errors import InputError


def refuse_faults(where: Path | str, faults: Sequence[str]) -> None:
    """Raise one error for all faults, if there are any.

    Args:
        where: File, folder or data set in which they are.
        faults: Each says what is wrong, with values, and what to do.

    Raises:
        InputError: There are faults; one is said in one line, several in a line each.
    """
    if len(faults) == 1:
        raise InputError(f"{where}: {faults[0]}")
    if faults:
        raise InputError("\n  ".join([f"{where}: {len(faults)} faults", *faults]))
