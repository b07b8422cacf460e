"""A bounded queue of jobs with one worker thread.

One thread segments, so one model at a time uses the device. The files of a job are in a folder of its own, which is
removed with the job.
"""

import contextlib
import logging
import math
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scanseg.errors import ScansegError
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.serving.limits import Limits

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
"""States in which a job does not change any more."""

_SECONDS_OF_FIRST_JOBS = 10.0
"""Assumed duration of a job before the first one has ended."""
_SECONDS_BETWEEN_CLEANUPS = 5.0
_SECONDS_BETWEEN_CHECKS = 0.02
_SECONDS_OF_LAST_WINDOW = 20.0
"""Longest wait for the window of a job that is to end."""
_logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """All places of the queue are taken.

    Args:
        message: The message.
        retry_seconds: Time after which a place is probably free.
    """

    def __init__(self, message: str, *, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        """Time in seconds after which a place is probably free."""


class _StopError(Exception):
    """A running job is to end."""


@dataclass(eq=False)
class Job:
    """One image to segment."""

    id: str
    """Random name, which cannot be guessed."""
    folder: Path
    """Folder of the files of the job."""
    model: str = ""
    """Name of the model."""
    mirror: bool | None = None
    """Average over flips. `None`: the choice of the model's plan."""
    uncertainty: bool = False
    """Make the uncertainty maps too."""
    files: list[Path] = field(default_factory=list)
    """Files of the image, one for each channel."""
    state: State = "waiting"
    error: str | None = None
    """Reason of a failure. `None`: no failure."""
    progress: ProgressUpdate | None = None
    """Last progress update. `None`: not started."""
    warnings: list[str] = field(default_factory=list)
    """Unusual properties of the image and the model."""
    seconds: float | None = None
    """Duration of the segmentation. `None`: not ended."""
    ended_at: float | None = None
    """Monotonic time of the end. `None`: not ended."""
    num_bytes: int = 0
    """Size of its files after its end."""
    results: dict[str, Path] = field(default_factory=dict)
    """Files of results by name."""
    volumes: dict[str, Any] | None = None
    """Volumes of the labels. `None`: not segmented."""
    was_fetched: bool = False
    """A client has read a result or the error."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set if the job is to end."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a result is made on demand."""

    @property
    def has_ended(self) -> bool:
        """True if the job does not change any more."""
        return self.state in ENDED


Work = Callable[[Job, ProgressCallback], None]
"""Function that segments the image of a job and sets its results."""


class JobQueue:
    """A bounded queue of jobs with one worker thread.

    Args:
        folder: Existing folder for the files of jobs.
        work: Function that segments the image of a job.
        limits: Places in the queue, times and sizes.
    """

    def __init__(self, folder: Path, work: Work, limits: Limits) -> None:
        self.limits = limits
        self._folder, self._work = folder, work
        self._jobs: dict[str, Job] = {}
        self._waiting = deque[Job]()
        self._running: Job | None = None
        self._num_reserved = 0
        self._is_closed = False
        self._last_seconds = deque[float](maxlen=10)
        self._changed = threading.Condition()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="scanseg-jobs", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of taken places: jobs that wait or are uploaded."""
        with self._changed:
            return self._num_reserved + len(self._waiting)

    @property
    def is_running(self) -> bool:
        """True while a job is segmented."""
        with self._changed:
            return self._running is not None

    @property
    def is_closed(self) -> bool:
        """True if no more jobs are accepted."""
        with self._changed:
            return self._is_closed

    def reserve(self) -> Job:
        """Take a place of the queue, before the upload.

        Returns:
            A new job with an empty folder. Give it to `submit` or `drop`.

        Raises:
            QueueFullError: All places are taken, or the server stops.
        """
        with self._changed:
            self._remove_old()
            taken = self._num_reserved + len(self._waiting)
            if self._is_closed:
                raise QueueFullError("The server stops. Try again later.", retry_seconds=30)
            if taken >= self.limits.queue_size:
                seconds = self._estimate()
                raise QueueFullError(
                    f"queue: expected a free place, got {taken} waiting jobs. Try again in {seconds} s.",
                    retry_seconds=seconds,
                )
            self._num_reserved += 1
        job = Job(secrets.token_urlsafe(16), Path())
        job.folder = self._folder / job.id
        job.folder.mkdir()
        return job

    def submit(self, job: Job) -> None:
        """Append a job whose files are complete.

        Args:
            job: Job of `reserve`.

        Raises:
            QueueFullError: The server stops.
        """
        with self._changed:
            self._num_reserved -= 1
            if not self._is_closed:
                self._jobs[job.id] = job
                self._waiting.append(job)
                self._changed.notify_all()
                return
        _remove(job)
        raise QueueFullError("The server stops. Try again later.", retry_seconds=30)

    def drop(self, job: Job) -> None:
        """Give back the place of a job whose upload failed.

        Args:
            job: Job of `reserve`.
        """
        with self._changed:
            self._num_reserved -= 1
        _remove(job)

    def find(self, job_id: str) -> Job | None:
        """Return a job by its name. `None`: unknown or removed.

        Args:
            job_id: Name of the job.
        """
        with self._changed:
            self._remove_old()
            return self._jobs.get(job_id)

    def cancel(self, job: Job) -> None:
        """End a job and remove it with its files.

        A running job ends at its next window, and its files are removed then.

        Args:
            job: Job of `find`.
        """
        with self._changed:
            self._jobs.pop(job.id, None)
            job.stop.set()
            if job is self._running:
                return
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
        _remove(job)

    def close(self, *, grace_seconds: float) -> None:
        """Accept no more jobs, cancel waiting ones, and end the thread.

        The running job may go on for some time, and its client may then fetch the result.

        Args:
            grace_seconds: Longest time for both.
        """
        deadline = time.monotonic() + grace_seconds
        with self._changed:
            self._is_closed = True
            running = self._running
            for job in self._waiting:
                job.state, job.error = "cancelled", "The server stopped before the job began."
            self._waiting.clear()
            self._changed.notify_all()
        wait_until(lambda: self._running is None, seconds=grace_seconds)
        if running is not None:
            running.stop.set()
        wait_until(lambda: self._has_ended, seconds=_SECONDS_OF_LAST_WINDOW)
        while running is not None and running.state == "done" and not running.was_fetched:
            if running.id not in self._jobs or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        with self._changed:
            for job in self._jobs.values():
                _remove(job)

    def _run(self) -> None:
        """Segment the waiting jobs, one after the other."""
        while (job := self._next()) is not None:
            self._segment(job)
            with self._changed:
                self._running = None
                is_known = job.id in self._jobs
                self._changed.notify_all()
            if not is_known:
                _remove(job)
            del job
        self._has_ended = True

    def _next(self) -> Job | None:
        """Wait for a job. `None`: the queue is closed."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait(_SECONDS_BETWEEN_CLEANUPS)
                self._remove_old()
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            self._running.state = "running"
            return self._running

    def _segment(self, job: Job) -> None:
        """Segment the image of a job and set its state."""
        begin = time.monotonic()
        deadline = begin + self.limits.job_seconds

        def report(update: ProgressUpdate) -> None:
            job.progress = update
            if job.stop.is_set():
                raise _StopError
            if time.monotonic() > deadline:
                raise ScansegError(
                    f"expected at most {self.limits.job_seconds:g} s for a job, got more. Send a smaller image, or "
                    "start the server with a larger --job-seconds."
                )

        state: State = "failed"
        try:
            self._work(job, report)
            state = "done"
        except _StopError:
            state, job.error = "cancelled", "The job was cancelled."
        except ScansegError as error:
            job.error = str(error)
        except MemoryError:
            job.error = "not enough memory on the server for this image. Send a smaller one."
        except Exception:
            job.error = "internal error of the server. Its log has the reason."
            _logger.exception("job %s failed", job.id)
        job.seconds = time.monotonic() - begin
        self._last_seconds.append(job.seconds)
        job.num_bytes = sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())
        job.ended_at = time.monotonic()
        job.state = state

    def _estimate(self) -> int:
        """Estimate the seconds until a place is free."""
        mean = sum(self._last_seconds) / max(1, len(self._last_seconds)) or _SECONDS_OF_FIRST_JOBS
        return min(600, max(1, math.ceil(mean)))

    def _remove_old(self) -> None:
        """Remove ended jobs that are too old, or too large together."""
        now = time.monotonic()
        ended = sorted(
            (job for job in self._jobs.values() if job.ended_at is not None),
            key=lambda job: job.ended_at or 0.0,
        )
        surplus = sum(job.num_bytes for job in ended) - self.limits.kept_bytes
        for job in ended:
            if now - (job.ended_at or 0.0) > self.limits.kept_seconds or surplus > 0:
                surplus -= job.num_bytes
                del self._jobs[job.id]
                _remove(job)


def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Wait for a condition without holding a lock.

    An interrupt during the wait for a lock, an event or a thread could leave it in a wrong state (cpython#89437).

    Args:
        condition: Function without locks.
        seconds: Longest time.
    """
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_CHECKS)


def _remove(job: Job) -> None:
    """Remove the files of a job."""
    with job.lock, contextlib.suppress(OSError):
        shutil.rmtree(job.folder)
