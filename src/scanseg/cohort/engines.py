"""Choice of the cluster that runs a command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from scanseg.cohort.ray_engine import RayEngine, open_ray
from scanseg.cohort.slurm_engine import SlurmEngine, open_slurm
from scanseg.errors import UsageError

EngineName = Literal["ray", "slurm"]
"""Programs that run work on the machines of a cluster."""


@contextmanager
def open_engine(
    name: EngineName | None,
    *,
    ray_address: str | None = None,
    slurm_options: Mapping[str, object] | None = None,
    output: Path,
    cases_in_jobs: bool = False,
) -> Iterator[RayEngine | SlurmEngine | None]:
    """Connect to a cluster.

    Args:
        name: Program of the cluster. `None`: this machine does the work.
        ray_address: Address of a Ray cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.
        slurm_options: Resources of SLURM jobs by name, and long options of `sbatch`.
        output: Output folder of the command. Logs of SLURM jobs are written beside it, to `OUTPUT-slurm`.
        cases_in_jobs: Call functions of cases, such as preprocessing, in jobs of SLURM. False: on this machine.

    Yields:
        The engine, or `None`.

    Raises:
        UsageError: The program is not installed or unknown, or the cluster cannot be reached.
    """
    if name not in (None, "ray", "slurm"):
        raise UsageError(f"engine {name!r} is unknown. Choose ray or slurm.")
    if ray_address is not None and name != "ray":
        raise UsageError(
            f"ray_address {ray_address}: expected `ray` as the engine, got {name or 'none'}. Add --on ray."
        )
    if slurm_options and name != "slurm":
        raise UsageError(
            f"slurm_options: expected `slurm` as the engine, got {name or 'none'}. Add --on slurm."
        )
    if name is None:
        yield None
    elif name == "ray":
        with open_ray(ray_address) as engine:
            yield engine
    else:
        folder = output.with_name(f"{output.name}-slurm")
        with open_slurm(slurm_options or {}, folder, cases_in_jobs=cases_in_jobs) as cluster:
            yield cluster
