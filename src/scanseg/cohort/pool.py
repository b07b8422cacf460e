"""Cases for several loaded models: who is free gets the next case."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from scanseg.cohort.model_worker import CALLS_AT_ONCE, LoadedFacts, PredictedFiles
from scanseg.errors import ScansegError
from scanseg.inference import CaseToPredict, FolderWork
from scanseg.progress import ProgressUpdate
from scanseg.runtime import WorkerEndedError
from scanseg.specs import PredictedCase

MOST_ATTEMPTS = 3
"""A case at which this many workers ended has failed."""
_MOST_FAILED_STARTS = 3
"""A place whose worker ended this often in a row, before it finished a case, gets no more workers."""
_POLL_SECONDS = 1.0


class Worker(Protocol):
    """A process that holds a `ModelWorker`."""

    def call(self, method: str, *arguments: object) -> "Future[Any]":
        """Call a method of the `ModelWorker`.

        Args:
            method: Name of the method.
            *arguments: Its arguments.

        Returns:
            Future of the result. It raises `WorkerEndedError` if the process has ended.
        """

    def close(self) -> None:
        """End the process."""


@dataclass(frozen=True)
class Place:
    """A device, or a share of a cluster, for one worker."""

    name: str
    """Name for messages."""
    start: Callable[[], Worker]
    """Starts a worker."""


@dataclass(eq=False)
class _Slot:
    """A place with its worker."""

    place: Place
    worker: Worker
    facts: "Future[LoadedFacts]"
    """Done as soon as the model is loaded."""
    running: "dict[Future[PredictedFiles], CaseToPredict]" = field(default_factory=dict)
    failed_starts: int = 0

    @classmethod
    def start(cls, place: Place) -> "_Slot":
        """Start a worker."""
        worker = place.start()
        return cls(place, worker, worker.call("facts"))

    def restart(self) -> None:
        """Replace an ended worker."""
        self.worker.close()
        self.worker = self.place.start()
        self.facts = self.worker.call("facts")
        self.running = {}


class ModelPool:
    """Workers on several places, each with the loaded model.

    A worker that ends is replaced, and its cases are predicted again. Such a case is alone in its worker, so that it
    cannot end the work on others.
    """

    def __init__(self, places: Sequence[Place], *, num_ready: int) -> None:
        """Start the workers, and wait until models are loaded.

        Args:
            places: One worker runs on each.
            num_ready: Number of workers to wait for.

        Raises:
            ScansegError: A model cannot be loaded, or all workers ended.
        """
        self._slots: list[_Slot] = []
        try:
            for place in places:
                self._slots.append(_Slot.start(place))
            self.facts = self._wait_for_models(num_ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ModelPool":
        """Return the pool."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers."""
        self.close()

    def close(self) -> None:
        """End the workers."""
        for slot in self._slots:
            slot.worker.close()
        self._slots = []

    def run(self, work: FolderWork) -> None:
        """Predict cases.

        Args:
            work: The cases.

        Raises:
            ScansegError: No worker can be started any more.
        """
        _Run(self._slots, work).finish()

    def _wait_for_models(self, num_ready: int) -> LoadedFacts:
        """Wait until models are loaded, and return their properties with all devices."""
        while True:
            loading = [slot.facts for slot in self._slots if not slot.facts.done()]
            for slot in [slot for slot in self._slots if slot.facts.done()]:
                _check_start(slot)
            facts = [slot.facts.result() for slot in self._slots if _is_loaded(slot)]
            if len(facts) >= num_ready:
                devices = Counter(each.device for each in facts)
                names = [name if count == 1 else f"{count} x {name}" for name, count in devices.items()]
                return replace(facts[0], device=", ".join(names))
            wait(loading, _POLL_SECONDS, FIRST_COMPLETED)


def _is_loaded(slot: _Slot) -> bool:
    """Return whether the model of a worker is loaded."""
    return slot.facts.done() and slot.facts.exception() is None


def _check_start(slot: _Slot) -> bool:
    """Replace a worker that ended while it loaded the model.

    Returns:
        Whether the worker was replaced.

    Raises:
        ScansegError: It ended too often, or the model cannot be loaded.
    """
    if not slot.facts.done() or (error := slot.facts.exception()) is None:
        return False
    if not isinstance(error, WorkerEndedError):
        raise error
    slot.failed_starts += 1
    if slot.failed_starts >= _MOST_FAILED_STARTS:
        raise ScansegError(
            f"{slot.place.name}: {slot.failed_starts} workers ended while they loaded the model ({error}), probably "
            f"for lack of memory. Leave out the device, or close other programs."
        )
    slot.restart()
    return True


class _Run:
    """The prediction of some cases by the workers of a pool."""

    def __init__(self, slots: Sequence[_Slot], work: FolderWork) -> None:
        self._slots, self._work = slots, work
        self._waiting = deque(work.cases)
        self._attempts = Counter[str]()
        """Ended workers by the case in work."""
        self._finished = deque[tuple[CaseToPredict, PredictedFiles]]()
        """Cases in the record that are not reported yet."""
        self._num_done, self._total = 0, len(work.cases)

    def finish(self) -> None:
        """Predict all cases.

        Headers are read while the workers predict. Results are reported after the warnings about headers.
        """
        self._report("")
        while self._num_done < self._total:
            # What ends from here on ends the wait at once.
            loading = [slot.facts for slot in self._slots if not slot.facts.done()]
            for slot in self._slots:
                _check_start(slot)
            self._fill()
            running = (future for slot in self._slots for future in slot.running)
            futures: list[Future[Any]] = [*loading, *running]
            if not self._work.headers.read_next():
                wait(futures, _POLL_SECONDS, FIRST_COMPLETED)
            for slot in self._slots:
                self._collect(slot)
            if self._work.headers.are_reported:
                self._report_finished()

    def _fill(self) -> None:
        """Give workers further cases, first the idle ones."""
        for num_running in range(CALLS_AT_ONCE):
            for slot in self._slots:
                if len(slot.running) != num_running or not _is_loaded(slot):
                    continue
                if (case := self._choose(slot)) is not None:
                    self._waiting.remove(case)
                    slot.running[slot.worker.call("predict", case, self._work.options)] = case

    def _choose(self, slot: _Slot) -> CaseToPredict | None:
        """Return the next case for a worker, if it can take one.

        A case at which a worker ended is alone in its worker.
        """
        if any(self._attempts[each.name] for each in slot.running.values()):
            return None
        candidates = (case for case in self._waiting if not (slot.running and self._attempts[case.name]))
        return next(candidates, None)

    def _collect(self, slot: _Slot) -> None:
        """Receive finished cases, and replace a worker that has ended."""
        ended: WorkerEndedError | None = None
        for future in [future for future in slot.running if future.done()]:
            error = future.exception()
            if isinstance(error, WorkerEndedError):
                ended = error
                continue
            case = slot.running.pop(future)
            if error is not None:
                raise error
            slot.failed_starts = 0
            self._finish(case, future.result())
        if ended is None:
            return
        wait(slot.running)  # all of them end with the worker
        lost = list(slot.running.values())
        slot.restart()
        for case in reversed(lost):
            self._return(case, slot, ended)

    def _return(self, case: CaseToPredict, slot: _Slot, ended: WorkerEndedError) -> None:
        """Put a case of an ended worker back, or record its failure."""
        self._attempts[case.name] += 1
        number = self._attempts[case.name]
        if number < MOST_ATTEMPTS:
            self._waiting.appendleft(case)
            self._report(
                case.name,
                f"case {case.name}: its worker on {slot.place.name} ended ({ended}). It is repeated.",
            )
            return
        fault = (
            f"{number} workers ended at this case (the last on {slot.place.name}: {ended}), probably for lack of "
            f"memory. Predict it alone, or on a machine with more memory."
        )
        self._finish(case, PredictedFiles(failed_case(case, fault), ()))

    def _finish(self, case: CaseToPredict, result: PredictedFiles) -> None:
        """Add the entry of a case to the record."""
        self._work.add(result.entry)
        self._finished.append((case, result))

    def _report_finished(self) -> None:
        """Report the finished cases with their new warnings."""
        while self._finished:
            case, result = self._finished.popleft()
            self._num_done += 1
            known = self._work.headers.of_case(case.name)
            new = [each for each in result.warnings if each not in known]
            self._report(case.name, *([f"case {case.name}: {' '.join(new)}"] if new else []))

    def _report(self, detail: str, *warnings: str) -> None:
        """Report the number of finished cases."""
        update = ProgressUpdate("predicting", self._num_done, self._total, detail, warnings=warnings)
        self._work.progress(update)


def failed_case(case: CaseToPredict, fault: str) -> PredictedCase:
    """Return the entry of a case that could not be predicted."""
    return PredictedCase(
        case=case.name,
        images=tuple(str(path) for path in case.outputs.case.images),
        label_map=None,
        probabilities=None,
        seconds=0.0,
        fault=fault,
    )
