"""Choice of the cluster that runs a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from scanseg.cohort.ray_engine import RayEngine, open_ray
from scanseg.errors import UsageError

EngineName = Literal["ray"]
"""Programs that run work on the machines of a cluster."""


@contextmanager
def open_engine(name: EngineName | None, *, ray_address: str | None = None) -> Iterator[RayEngine | None]:
    """Connect to a cluster.

    Args:
        name: Program of the cluster. `None`: this machine does the work.
        ray_address: Address of a Ray cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.

    Yields:
        The engine, or `None`.

    Raises:
        UsageError: The program is not installed or unknown, or the cluster cannot be reached.
    """
    if name is None:
        if ray_address is not None:
            raise UsageError(
                f"ray_address {ray_address}: expected `ray` as the engine, got none. Add --on ray."
            )
        yield None
        return
    if name != "ray":
        raise UsageError(f"engine {name!r} is unknown. Choose ray.")
    with open_ray(ray_address) as engine:
        yield engine
