"""Options of jobs on a SLURM cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scanseg.errors import UsageError

_NUMBERS = {"jobs": 1, "gpus": 0, "cpus": 1, "time": 1}
"""Options with a whole number, and their smallest values."""


@dataclass(frozen=True)
class SlurmOptions:
    """Resources of each job."""

    jobs: int = 8
    """Jobs of a prediction. Most trainings at the same time."""
    gpus: int = 1
    """GPUs of a job: 0 or 1."""
    cpus: int | None = None
    """Cores of a job. `None`: the threads of this machine."""
    time: int = 240
    """Time limit in minutes. A training that reaches it is put into the queue again, at most three times."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Long options of `sbatch`, without hyphens in front."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> "SlurmOptions":
        """Read options.

        Args:
            options: Values by name. Names besides `jobs`, `gpus`, `cpus` and `time` are long options of `sbatch`.

        Raises:
            UsageError: A number is wrong.
        """
        numbers = {name: _read_number(name, options[name]) for name in _NUMBERS if name in options}
        if numbers.get("gpus", 0) > 1:
            raise UsageError(
                f"--slurm-options: expected gpus=0 or gpus=1, got {numbers['gpus']}. Raise jobs."
            )
        others = {
            name.replace("-", "_"): str(value) for name, value in options.items() if name not in _NUMBERS
        }
        return cls(**numbers, others=others)


def split_options(text: str) -> dict[str, str]:
    """Split `key=value,key=value`.

    Raises:
        UsageError: A part has no key or no value.
    """
    options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition("=")
        if not (name and value):
            raise UsageError(
                f"--slurm-options {part!r}: expected key=value. Example: partition=gpu,time=600."
            )
        options[name] = value
    return options


def _read_number(name: str, value: object) -> int:
    """Read a whole number."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < _NUMBERS[name]:
        raise UsageError(
            f"--slurm-options {name}={value}: expected a whole number from {_NUMBERS[name]}. Example: {name}=8."
        )
    return number
