"""Cases and jobs on a Ray cluster."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from scanseg.cohort.job_process import run_job
from scanseg.cohort.model_worker import CALLS_AT_ONCE, ModelChoice, ModelWorker
from scanseg.cohort.pool import MOST_ATTEMPTS, Place
from scanseg.errors import InterruptionError, ScansegError, UsageError
from scanseg.progress import ProgressUpdate
from scanseg.runtime import Job, NamedCase, RunContext, WorkerEndedError, watch_signals

Case = TypeVar("Case", bound=NamedCase)
Result = TypeVar("Result")

_POLL_SECONDS = 0.5
_STOP_SECONDS = 120.0
"""Time for jobs to save their state after a stop."""


@dataclass(frozen=True)
class Share:
    """Resources of one worker or job."""

    num_gpus: int
    """GPUs: 0 or 1."""
    num_cpus: int
    """Cores."""
    count: int
    """Number of such shares in the cluster."""

    @property
    def device(self) -> str:
        """Device of the computation. Ray hides all other GPUs."""
        return "cuda" if self.num_gpus else "cpu"


def share_nodes(nodes: Sequence[dict[str, float]], *, num_threads: int) -> Share:
    """Divide a cluster into equal shares.

    A cluster with GPUs has one share for each GPU, with the cores of its node in proportion. Another cluster has shares
    of `num_threads` cores, so that sums have the same order as on this machine.

    Args:
        nodes: Resources of each node by name (`CPU`, `GPU`).
        num_threads: Threads of a computation on the CPU of this machine.

    Raises:
        UsageError: No node has a core.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    if gpu_nodes:
        cores = min(int(node.get("CPU", 0) // node["GPU"]) for node in gpu_nodes)
        return Share(1, max(cores, 0), sum(int(node["GPU"]) for node in gpu_nodes))
    counts = [int(node.get("CPU", 0)) for node in nodes]
    if not any(counts):
        raise UsageError("ray: expected nodes with a GPU or a CPU, got none. Start Ray with --num-cpus.")
    each = min(num_threads, max(counts))
    return Share(0, each, sum(number // each for number in counts))


@contextmanager
def open_ray(address: str | None) -> Iterator["RayEngine"]:
    """Connect to a Ray cluster.

    Args:
        address: Address of the cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.

    Yields:
        The engine. A connection that existed before is used, and kept.

    Raises:
        UsageError: Ray is not installed, or no cluster has the address.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError('--on ray: Ray is not installed. Install it: pip install "scanseg[ray]"') from error
    is_connected = ray.is_initialized()
    if is_connected and address not in (None, "auto", current := ray.get_runtime_context().gcs_address):
        raise UsageError(
            f"--ray-address {address}: this process is connected to {current}. Leave the address out, or disconnect by "
            f"ray.shutdown()."
        )
    if not is_connected:
        more = {"include_dashboard": False} if address == "local" else {}
        try:
            with keep_signal_handler():
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level="warning",
                    **more,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"--ray-address {address}: no cluster could be reached ({reason}). Start one by ray start --head."
            ) from error
    try:
        yield RayEngine(ray)
    finally:
        if not is_connected:
            ray.shutdown()


@contextmanager
def keep_signal_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block.

    Ray replaces it, and the command would no longer report an interruption.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RayEngine:
    """A Ray cluster with jobs as tasks and models as actors."""

    def __init__(self, ray: Any) -> None:
        """Read the resources of the cluster.

        Args:
            ray: The module, connected to a cluster.
        """
        import torch

        self._ray = ray
        self._num_threads = torch.get_num_threads()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.share = share_nodes(nodes, num_threads=self._num_threads)

    def describe(self) -> str:
        """Return number and device of the workers, for records."""
        return f"Ray, {self.share.count} x {self.share.device}"

    def places(self, choice: ModelChoice) -> list[Place]:
        """Return a place for each share of the cluster.

        Args:
            choice: The model.
        """
        start = partial(_RayWorker, self._ray, self.share, choice, self._threads)
        return [Place(f"Ray worker {number}", start) for number in range(self.share.count)]

    def map_cases(
        self, function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: RunContext
    ) -> list[Result]:
        """Call a function for every case, each as a task of Ray.

        Args:
            function: Called with each case. It can be pickled.
            cases: Cases, one call each.
            task: Name of the work in progress updates.
            context: Progress.

        Returns:
            Results in the order of the cases.

        Raises:
            ScansegError: A task was lost too often. Errors of the function propagate.
        """
        options = {"num_cpus": 1, "max_retries": MOST_ATTEMPTS - 1, "scheduling_strategy": "SPREAD"}
        remote = self._ray.remote(_call_case).options(**options)
        shared = self._ray.put(function)
        context.progress(ProgressUpdate(task, 0, len(cases)))
        waiting = {remote.remote(shared, case): case for case in cases}
        results: dict[str, Result] = {}
        try:
            while waiting:
                done, _ = self._ray.wait(list(waiting), timeout=_POLL_SECONDS)
                for reference in done:
                    case = waiting.pop(reference)
                    results[case.name] = self._result(reference, f"{task} case {case.name}")
                    context.progress(ProgressUpdate(task, len(results), len(cases), case.name))
        finally:
            for reference in waiting:
                self._ray.cancel(reference)
        return [results[case.name] for case in cases]

    def run_jobs(self, jobs: Sequence[Job], *, task: str, context: RunContext) -> None:
        """Run jobs, each as a task of Ray.

        The task of a lost node is started again, and its job continues from its last checkpoint.

        Args:
            jobs: The jobs.
            task: Name of the work in progress updates.
            context: Workers of each job, progress and stopping.

        Raises:
            InterruptionError: A signal came, or the time is over.
            ScansegError: Jobs failed. The message names all of them.
        """
        if jobs:
            _RayJobs(self._ray, self, jobs, task=task, context=context).run()

    @property
    def _threads(self) -> int:
        """Threads of a computation on a CPU."""
        return max(1, self.share.num_cpus if self.share.num_gpus else self._num_threads)

    def _result(self, reference: Any, name: str) -> Any:
        """Return the result of a task, or raise its error."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise ScansegError(
                f"{name}: its worker was lost {MOST_ATTEMPTS} times ({type(error).__name__}), probably for lack of "
                f"memory. Use nodes with more memory."
            ) from error


def _call_case(function: Callable[[Any], Any], case: Any) -> Any:
    """Call the function of a task."""
    return function(case)


class _RayWorker:
    """A `ModelWorker` as an actor of Ray."""

    def __init__(self, ray: Any, share: Share, choice: ModelChoice, num_threads: int) -> None:
        # Ray would restart a lost actor and wait for a node as large as the lost one. The pool starts another actor,
        # and gives the case to the next free worker.
        actor = ray.remote(ModelWorker).options(
            num_cpus=share.num_cpus,
            num_gpus=share.num_gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        self._ray = ray
        self._actor = actor.remote(choice, share.device, num_threads, is_remote=True)

    def call(self, method: str, *arguments: object) -> "Future[Any]":
        """Call a method of the actor."""
        future: Future[Any] = Future()
        reference = getattr(self._actor, method).remote(*arguments)
        reference.future().add_done_callback(partial(_complete, future, self._ray.exceptions))
        return future

    def close(self) -> None:
        """End the actor."""
        with suppress(Exception):  # it has ended, or the cluster has
            self._ray.kill(self._actor)


def _complete(future: "Future[Any]", exceptions: Any, source: "Future[Any]") -> None:
    """Set the result of a call.

    Errors of Ray mean that the actor has ended.
    """
    error = source.exception()
    if error is None:
        future.set_result(source.result())
    elif isinstance(error, exceptions.RayTaskError):
        future.set_exception(error.cause)
    elif isinstance(error, exceptions.RayError):
        future.set_exception(WorkerEndedError(f"Ray: {type(error).__name__}"))
    else:
        future.set_exception(error)


@dataclass(eq=False)
class _RayJobs:
    """Jobs as tasks of Ray."""

    ray: Any
    engine: RayEngine
    jobs: Sequence[Job]
    task: str
    context: RunContext
    failures: list[str] = field(default_factory=list)
    num_done: int = 0

    def run(self) -> None:
        """Run all jobs."""
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=True)
        self.messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        try:
            self._run()
        finally:
            self.messages.shutdown(force=True)
        if self.failures:
            raise ScansegError("; ".join(self.failures))

    def _run(self) -> None:
        """Start the tasks, and wait for them."""
        share, num_workers = self.engine.share, self.context.num_workers
        remote = self.ray.remote(_run_job).options(
            num_cpus=share.num_cpus,
            num_gpus=share.num_gpus,
            max_retries=MOST_ATTEMPTS - 1,
            scheduling_strategy="SPREAD",
        )
        workers = share.num_cpus if num_workers is None else num_workers
        waiting = {
            remote.remote(job, share.device, workers, self.engine._threads, self.messages): job
            for job in self.jobs
        }
        self._report("")
        while waiting:
            done, _ = self.ray.wait(list(waiting), timeout=_POLL_SECONDS)
            for reference in done:
                self._collect(reference, waiting.pop(reference))
            self._receive()
            if waiting and (number := self.context.should_stop()) is not None:
                self._stop(list(waiting))
                raise InterruptionError("stopped; continue with --resume", signal_number=number)

    def _collect(self, reference: Any, job: Job) -> None:
        """Receive the end of a job."""
        try:
            failure = self.engine._result(reference, job.name)
        except Exception as error:
            failure = str(error)
        if failure is None:
            self.num_done += 1
            self._report(job.name)
        else:
            self.failures.append(f"{job.name}: {failure}")

    def _stop(self, references: list[Any]) -> None:
        """Stop the running jobs, and wait until they are saved."""
        for reference in references:
            self.ray.cancel(reference)
        self.ray.wait(references, num_returns=len(references), timeout=_STOP_SECONDS)

    def _receive(self) -> None:
        """Report the newest progress of the jobs, and all warnings."""
        with suppress(self.ray.exceptions.RayError):
            for detail, warnings in self.messages.get_nowait_batch(self.messages.qsize()):
                self._report(detail, warnings)

    def _report(self, detail: str, warnings: tuple[str, ...] = ()) -> None:
        """Report the number of finished jobs."""
        self.context.progress(
            ProgressUpdate(self.task, self.num_done, len(self.jobs), detail, warnings=warnings)
        )


def _run_job(job: Job, device: str, num_workers: int, num_threads: int, messages: Any) -> str | None:
    """Run a job in a task.

    A cancelled task gets SIGINT, after which the job saves its state.

    Returns:
        The reason of a failure, or `None`.
    """
    with watch_signals() as signalled:
        return run_job(job, device, num_workers, num_threads, messages, signalled)
