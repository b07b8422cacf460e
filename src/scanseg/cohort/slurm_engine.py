"""Cases and jobs on a SLURM cluster, by submitit."""

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from scanseg.cohort.model_worker import ModelChoice, PredictedFiles
from scanseg.cohort.pool import MOST_ATTEMPTS, failed_case
from scanseg.cohort.slurm_cases import SlurmCases
from scanseg.cohort.slurm_jobs import STOP_FILE, PredictShare, RunJob, Share, read_object, write_object
from scanseg.cohort.slurm_options import SlurmOptions
from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.inference import CaseToPredict, FolderWork
from scanseg.progress import ProgressUpdate
from scanseg.runtime import Job, NamedCase, RunContext, map_cases

Case = TypeVar("Case", bound=NamedCase)
Result = TypeVar("Result")

CLUSTER = "slurm"
"""Kind of the cluster for submitit. Tests use processes of this machine."""
_POLL_SECONDS = 0.5
_STATE_SECONDS = 30.0
"""Time between two questions to SLURM about a job."""
_STOP_SECONDS = 120.0
"""Time for jobs to save their state after a stop."""
_END_SECONDS = 10.0
"""Time for cancelled jobs to end."""


@contextmanager
def open_slurm(
    options: Mapping[str, object], folder: Path, *, cases_in_jobs: bool
) -> Iterator["SlurmEngine"]:
    """Prepare the submission of jobs.

    Args:
        options: Values by name, see `SlurmOptions.parse`.
        folder: Folder for logs and files of jobs, on the shared file system.
        cases_in_jobs: Call functions of cases in jobs. False: on this machine.

    Yields:
        The engine. All of its jobs are cancelled at the end of the block.

    Raises:
        UsageError: submitit or SLURM is missing, or an option is wrong.
    """
    try:
        import submitit
    except ImportError as error:
        raise UsageError(
            '--on slurm: submitit is not installed. Install it: pip install "scanseg[slurm]"'
        ) from error
    chosen = SlurmOptions.parse(options)
    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        raise UsageError(
            "--on slurm: sbatch was not found. Run the command on a login node of the SLURM cluster, or use --devices."
        )
    engine = SlurmEngine(submitit, chosen, folder.absolute(), cases_in_jobs=cases_in_jobs)
    try:
        yield engine
    finally:
        engine.cancel()


@dataclass(eq=False)
class Submitted:
    """A submitted job."""

    name: str
    work: Callable[[], str | None]
    job: Any
    attempts: int = 1
    last_asked: float = field(default_factory=time.monotonic)

    @property
    def log(self) -> Path:
        """File of the errors of the job."""
        return Path(self.job.paths.stderr)

    def has_ended(self) -> bool:
        """Return whether the job has a result or is lost."""
        is_due = time.monotonic() - self.last_asked >= _STATE_SECONDS
        if is_due:
            self.last_asked = time.monotonic()
        return bool(self.job.done(force_check=is_due))

    def loss(self) -> str | None:
        """Return why the ended job has no result, or `None`."""
        if not self.job.paths.result_pickle.exists():
            return f"job {self.job.job_id} ended without a result; log: {self.log}"
        if self.job.exception() is not None:
            return f"job {self.job.job_id} failed; log: {self.log}"
        return None


class SlurmEngine:
    """A SLURM cluster with an array of jobs."""

    def __init__(
        self, submitit: Any, options: SlurmOptions, folder: Path, *, cases_in_jobs: bool = False
    ) -> None:
        """Set the resources of all jobs.

        Args:
            submitit: The module.
            options: Resources.
            folder: Folder for logs and files of jobs.
            cases_in_jobs: Call functions of cases in jobs. False: on this machine.
        """
        import torch

        self._cases_in_jobs = cases_in_jobs
        self.options, self._submitit = options, submitit
        self.num_threads = options.cpus or torch.get_num_threads()
        self.device = "cuda" if options.gpus else "cpu"
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder))
        self._executor = submitit.AutoExecutor(self.folder, cluster=CLUSTER)
        self._executor.update_parameters(
            name="scanseg",
            nodes=1,
            tasks_per_node=1,
            timeout_min=options.time,
            cpus_per_task=self.num_threads,
            slurm_array_parallelism=options.jobs,
            slurm_additional_parameters=dict(options.others),
            **({"gpus_per_node": 1} if options.gpus else {}),
        )
        self._all: list[Submitted] = []

    def describe(self) -> str:
        """Return number and device of the jobs, for records."""
        return f"SLURM, {self.options.jobs} x {self.device}"

    def submit(self, works: Mapping[str, Callable[[], str | None]]) -> list[Submitted]:
        """Submit an array of jobs.

        Args:
            works: Work of each job by name.

        Raises:
            UsageError: SLURM refused the jobs.
        """
        with self._explain(), self._executor.batch():
            jobs = [self._executor.submit(work) for work in works.values()]
        added = [Submitted(name, work, job) for (name, work), job in zip(works.items(), jobs, strict=True)]
        self._all += added
        return added

    def repeat(self, submitted: Submitted) -> None:
        """Submit a lost job again."""
        submitted.job.cancel(check=False)  # SLURM may have put it into the queue again
        with self._explain():
            submitted.job = self._executor.submit(submitted.work)
        submitted.attempts += 1

    def stop(self) -> None:
        """Let running jobs save their state, and cancel all others."""
        (self.folder / STOP_FILE).touch()
        for each in self._all:
            if isinstance(each.work, RunJob) and not each.work.messages_file.exists():
                each.job.cancel(check=False)
        self._wait(_STOP_SECONDS)

    def cancel(self) -> None:
        """Cancel all jobs that have not ended."""
        running = [each for each in self._all if not each.job.done()]
        if running:
            (self.folder / STOP_FILE).touch()
            for each in running:
                each.job.cancel(check=False)
            self._wait(_END_SECONDS)

    def map_cases(
        self, function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: RunContext
    ) -> list[Result]:
        """Call a function for every case.

        `scanseg preprocess` calls it in jobs. Other commands call it on this machine, because a job for a few cases
        would wait longer than it works. See `scanseg.runtime.map_cases`.

        Raises:
            ScansegError: A job was lost too often. Errors of the function propagate.
        """
        if self._cases_in_jobs and cases:
            done = SlurmCases(self, function, cases, task=task, context=context).run()
            return cast("list[Result]", done)
        return map_cases(function, cases, task=task, context=replace(context, engine=None))

    def run_jobs(self, jobs: Sequence[Job], *, task: str, context: RunContext) -> None:
        """Run jobs, each as a job of SLURM.

        A lost job is submitted again, and continues from its last checkpoint.

        Args:
            jobs: The jobs.
            task: Name of the work in progress updates.
            context: Workers of each job, progress and stopping.

        Raises:
            InterruptionError: A signal came, or the time is over.
            ScansegError: Jobs failed. The message names all of them.
        """
        if jobs:
            _SlurmJobs(self, jobs, task=task, context=context).run()

    def _wait(self, seconds: float) -> None:
        """Wait until all jobs have ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(each.has_ended() for each in self._all):
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Explain a refusal of `sbatch`."""
        try:
            yield
        except self._submitit.core.utils.FailedJobError as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"--on slurm: sbatch refused ({reason}). Change --slurm-options.") from error


class _SlurmJobs:
    """Folds or arms as jobs of SLURM."""

    def __init__(self, engine: SlurmEngine, jobs: Sequence[Job], *, task: str, context: RunContext) -> None:
        self._engine, self._task, self._context, self._total = engine, task, context, len(jobs)
        words = (engine.device, engine.num_threads)
        works = {
            job.name: RunJob(engine.folder, number, *words, job, context.num_workers)
            for number, job in enumerate(jobs)
        }
        self._waiting = engine.submit(works)
        self._read = Counter[Path]()
        """Bytes of messages that were read."""
        self._failures: list[str] = []
        self._num_done = 0

    def run(self) -> None:
        """Wait for all jobs."""
        self._report("")
        while self._waiting:
            for each in list(self._waiting):
                self._receive(each)
                if each.has_ended():
                    self._collect(each)
            if self._waiting and (number := self._context.should_stop()) is not None:
                self._engine.stop()
                raise InterruptionError("stopped; continue with --resume", signal_number=number)
            time.sleep(_POLL_SECONDS)
        if self._failures:
            raise ScansegError("; ".join(self._failures))

    def _collect(self, each: Submitted) -> None:
        """Receive the end of a job."""
        loss = each.loss()
        if loss is not None and each.attempts < MOST_ATTEMPTS:
            self._report(each.name, (f"{each.name}: {loss}. It is repeated.",))
            self._engine.repeat(each)
            return
        self._waiting.remove(each)
        failure = loss if loss is not None else each.job.result()
        if failure is None:
            self._num_done += 1
            self._report(each.name)
        else:
            self._failures.append(f"{each.name}: {failure}")

    def _receive(self, each: Submitted) -> None:
        """Report new messages of a job."""
        path = each.work.messages_file  # type: ignore[attr-defined]
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[path])
            whole, end, _ = file.read().rpartition(b"\n")
        self._read[path] += len(whole) + len(end)
        for line in whole.splitlines():
            detail, warnings = json.loads(line)
            self._report(detail, tuple(warnings))

    def _report(self, detail: str, warnings: tuple[str, ...] = ()) -> None:
        """Report the number of finished jobs."""
        self._context.progress(
            ProgressUpdate(self._task, self._num_done, self._total, detail, warnings=warnings)
        )


class SlurmShares:
    """A job for each share of the cases. It loads the model once."""

    def __init__(self, engine: SlurmEngine, choice: ModelChoice) -> None:
        """Submit the jobs, and wait until one has loaded the model.

        Args:
            engine: The cluster.
            choice: The model.

        Raises:
            ScansegError: The model cannot be loaded, or a job was lost too often.
        """
        self._engine = engine
        words = (engine.device, engine.num_threads, choice)
        shares = [PredictShare(engine.folder, number, *words) for number in range(engine.options.jobs)]
        self._jobs = list(
            zip(shares, engine.submit({f"share {each.number}": each for each in shares}), strict=True)
        )
        while not (ready := [each for each, _ in self._jobs if each.facts_file.exists()]):
            for _, submitted in self._jobs:
                if submitted.has_ended():
                    self._restart(submitted)
            time.sleep(_POLL_SECONDS)
        self.facts = replace(read_object(ready[0].facts_file), device=engine.describe())

    def run(self, work: FolderWork) -> None:
        """Predict cases.

        Args:
            work: The cases.

        Raises:
            ScansegError: The model cannot be loaded, or a job was lost too often.
        """
        self._work, self._losses, self._num_done = work, Counter[int](), 0
        numbered = list(enumerate(work.cases))
        self._left = {each.number: dict(numbered[each.number :: len(self._jobs)]) for each, _ in self._jobs}
        for each, _ in self._jobs:
            write_object(each.share_file, Share(list(self._left[each.number].items()), work.options))
        work.headers.read_all()
        self._report("")
        while any(self._left.values()):
            for each, submitted in self._jobs:
                has_ended = submitted.has_ended()
                self._collect(each)
                if has_ended and self._left[each.number]:
                    self._lose(each, submitted)
            time.sleep(_POLL_SECONDS)

    def _collect(self, share: PredictShare) -> None:
        """Receive finished cases."""
        left = self._left[share.number]
        for number, case in list(left.items()):
            if share.result_file(number).exists():
                del left[number]
                self._finish(case, read_object(share.result_file(number)))

    def _lose(self, share: PredictShare, submitted: Submitted) -> None:
        """Repeat the remaining cases of a lost job, one at a time."""
        left, reason = self._left[share.number], submitted.loss() or "the job ended early"
        begun = [number for number in left if share.begun_file(number).exists()]
        for number in begun:
            share.begun_file(number).unlink()
            self._losses[number] += 1
            if self._losses[number] < MOST_ATTEMPTS:
                self._report(left[number].name, f"case {left[number].name}: {reason}. It is repeated.")
                continue
            fault = (
                f"{MOST_ATTEMPTS} jobs ended at this case (the last: {reason}), probably for lack of memory. Predict "
                f"it alone, or with more memory (--slurm-options mem=64G)."
            )
            case = left.pop(number)
            self._finish(case, PredictedFiles(failed_case(case, fault), ()))
        if left:
            write_object(share.share_file, Share(list(left.items()), self._work.options, at_once=1))
            if begun:
                submitted.attempts = 0  # the cases are to blame
            self._restart(submitted)

    def _restart(self, submitted: Submitted) -> None:
        """Submit an ended job again, or raise its error."""
        loss = submitted.loss()
        failure = submitted.job.result() if loss is None else None
        if failure is not None:
            raise ScansegError(failure)
        if submitted.attempts >= MOST_ATTEMPTS:
            raise ScansegError(
                f"{submitted.name}: {submitted.attempts} jobs were lost (the last: {loss}). Read the log."
            )
        self._engine.repeat(submitted)

    def _finish(self, case: CaseToPredict, result: PredictedFiles) -> None:
        """Add the entry of a case to the record, and report it."""
        self._work.add(result.entry)
        self._num_done += 1
        new = [each for each in result.warnings if each not in self._work.headers.of_case(case.name)]
        self._report(case.name, *([f"case {case.name}: {' '.join(new)}"] if new else []))

    def _report(self, detail: str, *warnings: str) -> None:
        """Report the number of finished cases."""
        total = len(self._work.cases)
        self._work.progress(ProgressUpdate("predicting", self._num_done, total, detail, warnings=warnings))
