"""Interface of a cluster for cases and jobs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from scanseg.runtime.context import RunContext


class NamedCase(Protocol):
    """Object with the name of a case."""

    @property
    def name(self) -> str:
        """Name of the case."""


class Job(Protocol):
    """A unit of work that can run in another process."""

    @property
    def name(self) -> str:
        """Name for messages and progress."""

    def run(self, context: "RunContext") -> object:
        """Do the work, or continue it after an interruption.

        Args:
            context: Device, workers, progress and stopping.
        """


Case = TypeVar("Case", bound=NamedCase)
Result = TypeVar("Result")


class Engine(Protocol):
    """Cluster of machines that share the file system of this one."""

    def map_cases(
        self, function: Callable[[Case], Result], cases: Sequence[Case], *, task: str, context: "RunContext"
    ) -> list[Result]:
        """Call a function for every case.

        Calls of lost machines are repeated.

        Args:
            function: Called with each case. It can be pickled.
            cases: Cases, one call each.
            task: Name of the work in progress updates.
            context: Progress.

        Returns:
            Results in the order of the cases.
        """

    def run_jobs(self, jobs: Sequence[Job], *, task: str, context: "RunContext") -> None:
        """Run jobs.

        Jobs of lost machines continue on others.

        Args:
            jobs: The jobs.
            task: Name of the work in progress updates.
            context: Workers of each job, progress and stopping.

        Raises:
            InterruptionError: A signal came, or the time is over.
            ScansegError: Jobs failed. The message names all of them.
        """
