"""Warnings about headers of all cases, reported before the first result."""

from collections import deque
from collections.abc import Sequence

from scanseg.inference.input_checks import header_warnings
from scanseg.inference.outputs import CaseOutputs
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.specs import Plan


class HeaderWarnings:
    """Warnings about folders and headers.

    The headers are read one at a time, so that workers can get cases meanwhile.
    """

    def __init__(
        self, cases: Sequence[CaseOutputs], plan: Plan, *, warnings: Sequence[str], progress: ProgressCallback
    ) -> None:
        """Prepare the check. No header is read yet.

        Args:
            cases: The cases.
            plan: Plan of the model.
            warnings: Warnings about folders and the model.
            progress: Called once with all warnings, if any.
        """
        self._cases, self._waiting, self._plan = cases, deque(cases), plan
        self._warnings, self._progress = tuple(warnings), progress
        self._found: dict[str, tuple[str, ...]] = {}
        self._are_reported = False

    def read_next(self) -> bool:
        """Read the header of one case.

        After the last one, all warnings are reported.

        Returns:
            False if all were reported before.
        """
        if self._are_reported:
            return False
        if self._waiting:
            outputs = self._waiting.popleft()
            self._found[outputs.case.name] = header_warnings(outputs.case.images, self._plan)
        if not self._waiting:
            self._are_reported = True
            self._report()
        return True

    def read_all(self) -> None:
        """Read the remaining headers, and report all warnings."""
        while self.read_next():
            pass

    @property
    def are_reported(self) -> bool:
        """True if all headers were read."""
        return self._are_reported

    def of_case(self, name: str) -> tuple[str, ...]:
        """Return the reported warnings that concern a case.

        Args:
            name: Name of the case. Its header was read.
        """
        return (*self._warnings, *self._found[name])

    def _report(self) -> None:
        """Report all warnings in one update."""
        named = [f"case {name}: {' '.join(of_case)}" for name, of_case in self._found.items() if of_case]
        if self._warnings or named:
            first = self._cases[0].case.name if self._cases else ""
            update = ProgressUpdate(
                "predicting", 0, len(self._cases), first, warnings=(*self._warnings, *named)
            )
            self._progress(update)
