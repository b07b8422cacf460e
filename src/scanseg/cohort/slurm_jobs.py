"""Work of one SLURM job. It exchanges files with the command."""

import json
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanseg.cohort.job_process import run_job
from scanseg.cohort.model_worker import CALLS_AT_ONCE, LoadedFacts, ModelChoice, ModelWorker
from scanseg.errors import ScansegError
from scanseg.files import written_whole
from scanseg.inference import CaseOptions, CaseToPredict
from scanseg.runtime import Job, NamedCase, RunContext, as_sendable, map_cases

STOP_FILE = "stop"
"""Its presence asks all jobs to save their state and to end."""
_POLL_SECONDS = 1.0
_WAIT_SECONDS = 3600.0
"""Time that a job waits for its cases."""


@dataclass(frozen=True)
class Share:
    """Cases of one job."""

    cases: Sequence[tuple[int, CaseToPredict]]
    """Cases with their numbers."""
    options: CaseOptions
    """Options of all cases."""
    at_once: int = CALLS_AT_ONCE
    """Cases in work at the same time."""


def write_object(path: Path, value: object) -> None:
    """Write an object. The file appears when it is complete."""
    with written_whole(path) as unfinished:
        unfinished.write_bytes(pickle.dumps(value))


def read_object(path: Path) -> Any:
    """Read an object of this command."""
    return pickle.loads(path.read_bytes())


@dataclass(frozen=True)
class _Restarted:
    """Work that SLURM may stop and start again."""

    folder: Path
    """Folder for files between the command and its jobs."""
    number: int
    """Number of the job, from 0."""
    device: str
    """Name of the device."""
    num_threads: int
    """Threads of a computation on a CPU."""

    def checkpoint(self) -> Any:
        """Return the work for the time after a preemption or a time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def should_stop(self) -> int | None:
        """Return SIGINT if the command asks its jobs to stop."""
        return signal.SIGINT if (self.folder / STOP_FILE).exists() else None


@dataclass(frozen=True)
class PredictShare(_Restarted):
    """Loads the model, waits for a share of the cases, and predicts them."""

    choice: ModelChoice
    """The model."""

    @property
    def facts_file(self) -> Path:
        """File of the properties of the model."""
        return self.folder / f"facts-{self.number}"

    @property
    def share_file(self) -> Path:
        """File of the cases."""
        return self.folder / f"share-{self.number}"

    def begun_file(self, case: int) -> Path:
        """Return the file of a case that has begun."""
        return self.folder / f"begun-{case}"

    def result_file(self, case: int) -> Path:
        """Return the file of a finished case."""
        return self.folder / f"result-{case}"

    def __call__(self) -> str | None:
        """Predict the cases that have no result.

        Returns:
            The reason why the model cannot be loaded, or `None`.
        """
        try:
            worker = ModelWorker(self.choice, self.device, self.num_threads, is_remote=True)
            facts: LoadedFacts = worker.facts()
        except ScansegError as error:
            return str(error)
        write_object(self.facts_file, facts)
        end = time.monotonic() + _WAIT_SECONDS
        while not self.share_file.exists():
            if self.should_stop() or time.monotonic() > end:
                return "the command sent no cases"
            time.sleep(_POLL_SECONDS)
        share: Share = read_object(self.share_file)
        with ThreadPoolExecutor(share.at_once) as pool:
            list(pool.map(lambda item: self._predict(worker, item[0], item[1], share.options), share.cases))
        return None

    def _predict(self, worker: ModelWorker, number: int, case: CaseToPredict, options: CaseOptions) -> None:
        """Predict a case, unless it has a result."""
        if self.should_stop() or self.result_file(number).exists():
            return
        self.begun_file(number).touch()
        write_object(self.result_file(number), worker.predict(case, options))


@dataclass(frozen=True)
class NumberedCase:
    """A case with its number."""

    number: int
    case: NamedCase

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name


@dataclass(frozen=True)
class Failed:
    """Error of a function, instead of its result."""

    error: Exception


@dataclass(frozen=True)
class CallFunction(_Restarted):
    """Calls a function for every case of a share."""

    function: Callable[[Any], object]
    """Called with each case."""
    cases: Sequence[NumberedCase]
    """Cases of the share."""
    num_workers: int
    """Processes that call the function. 0: the process of the job."""

    def begun_file(self, case: int) -> Path:
        """Return the file of a case whose call has begun."""
        return self.folder / f"begun-{case}"

    def result_file(self, case: int) -> Path:
        """Return the file of the result of a case."""
        return self.folder / f"result-{case}"

    def __call__(self) -> None:
        """Call the function for the cases that have no result."""
        waiting = [each for each in self.cases if not self.result_file(each.number).exists()]
        map_cases(self._call, waiting, task="cases", context=RunContext(num_workers=self.num_workers))

    def _call(self, numbered: NumberedCase) -> None:
        """Write the result of a case, or the error of the function."""
        if self.should_stop():
            return
        self.begun_file(numbered.number).touch()
        try:
            result = self.function(numbered.case)
        except Exception as error:
            result = Failed(as_sendable(error))
        write_object(self.result_file(numbered.number), result)


@dataclass(frozen=True)
class RunJob(_Restarted):
    """Runs a fold or an arm."""

    job: Job
    """The job. It continues from its last checkpoint."""
    num_workers: int | None
    """Processes that read cases."""

    @property
    def messages_file(self) -> Path:
        """File of progress and warnings, one message a line."""
        return self.folder / f"messages-{self.number}"

    def __call__(self) -> str | None:
        """Run the job.

        Returns:
            The reason of a failure, or `None`.
        """
        self.messages_file.touch()
        return run_job(self.job, self.device, self.num_workers, self.num_threads, self, self.should_stop)

    def put(self, message: tuple[str, tuple[str, ...]], *, block: bool) -> None:
        """Append a message."""
        with self.messages_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")
