"""Calls of a function for every case, in jobs of SLURM."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scanseg.cohort.pool import MOST_ATTEMPTS
from scanseg.cohort.slurm_jobs import CallFunction, Failed, NumberedCase, read_object
from scanseg.errors import ScansegError
from scanseg.progress import ProgressUpdate
from scanseg.runtime import NamedCase, RunContext

if TYPE_CHECKING:
    from scanseg.cohort.slurm_engine import SlurmEngine, Submitted

_POLL_SECONDS = 0.5


class SlurmCases:
    """A job for each share of the cases."""

    def __init__(
        self,
        engine: "SlurmEngine",
        function: Callable[[Any], object],
        cases: Sequence[NamedCase],
        *,
        task: str,
        context: RunContext,
    ) -> None:
        """Submit the jobs.

        Args:
            engine: The cluster.
            function: Called with each case. It can be pickled.
            cases: The cases.
            task: Name of the work in progress updates.
            context: Worker processes of each job, and progress.
        """
        self._engine, self._cases, self._task, self._context = engine, cases, task, context
        folder = Path(tempfile.mkdtemp(prefix="cases-", dir=engine.folder))
        wanted = context.num_workers
        workers = engine.num_threads if wanted is None else wanted
        numbered = [NumberedCase(number, case) for number, case in enumerate(cases)]
        count = min(engine.options.jobs, len(cases))
        words = (engine.device, engine.num_threads, function)
        self._shares = [
            CallFunction(folder, number, *words, numbered[number::count], workers if workers > 1 else 0)
            for number in range(count)
        ]
        self._jobs = engine.submit({f"{task}, share {each.number}": each for each in self._shares})
        self._left = {each.number: {case.number for case in each.cases} for each in self._shares}
        self._losses = Counter[int]()
        self._results: dict[int, object] = {}

    def run(self) -> list[object]:
        """Wait for all cases.

        Returns:
            Results in the order of the cases.

        Raises:
            ScansegError: A job was lost too often. Errors of the function propagate.
        """
        self._report("")
        while any(self._left.values()):
            for number, submitted in enumerate(self._jobs):
                has_ended = submitted.has_ended()
                self._collect(self._shares[number])
                if has_ended and self._left[number]:
                    self._lose(number, submitted)
            time.sleep(_POLL_SECONDS)
        return [self._results[number] for number in range(len(self._cases))]

    def _collect(self, share: CallFunction) -> None:
        """Receive finished cases, or raise the error of one."""
        for number in sorted(self._left[share.number]):
            if not share.result_file(number).exists():
                continue
            result = read_object(share.result_file(number))
            if isinstance(result, Failed):
                raise result.error
            self._left[share.number].remove(number)
            self._results[number] = result
            self._report(self._cases[number].name)

    def _lose(self, number: int, submitted: "Submitted") -> None:
        """Repeat the remaining cases of a lost job, one at a time."""
        share, reason = self._shares[number], submitted.loss() or "the job ended early"
        begun = [case for case in sorted(self._left[number]) if share.begun_file(case).exists()]
        for case in begun:
            share.begun_file(case).unlink()
            self._losses[case] += 1
            name = self._cases[case].name
            if self._losses[case] >= MOST_ATTEMPTS:
                raise ScansegError(
                    f"{self._task}: {MOST_ATTEMPTS} jobs ended at case {name} (the last: {reason}), probably for lack "
                    f"of memory. Give them more (--slurm-options mem=64G)."
                )
            self._report(name, f"case {name}: {reason}. It is repeated.")
        if begun:
            submitted.attempts = 0  # the cases are to blame
        elif submitted.attempts >= MOST_ATTEMPTS:
            raise ScansegError(
                f"{submitted.name}: {submitted.attempts} jobs were lost (the last: {reason}). Read the log."
            )
        self._shares[number] = replace(share, num_workers=0)
        submitted.work = cast("Callable[[], str | None]", self._shares[number])
        self._engine.repeat(submitted)

    def _report(self, detail: str, *warnings: str) -> None:
        """Report the number of finished cases."""
        done, total = len(self._results), len(self._cases)
        self._context.progress(ProgressUpdate(self._task, done, total, detail, warnings=warnings))
