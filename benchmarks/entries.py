"""What a benchmark's entry is: where it runs, how it is checked, and the calls that are timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from benchmarks.gates import GateReport
from benchmarks.measuring import Call
from benchmarks.roofline import Work

PrecisionName = Literal["float32", "tf32", "bfloat16", "float16"]

DTYPES: Mapping[PrecisionName, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class UnavailableError(Exception):
    """An entry cannot run here, for the reason said: a package is not installed, or a size is refused."""


@dataclass(frozen=True)
class TimedCall:
    """One thing that is timed.

    Attributes:
        call: Does it once.
        work: The least that it must do, where that is known by formula; None: it is counted while it runs.
        flush: Whether a GPU's cache is emptied before every repetition.
    """

    call: Call
    work: Work | None = None
    flush: bool = False


@dataclass(frozen=True)
class Workload:
    """An entry, built on its device.

    Attributes:
        calls: What is timed, by name: `forward`, `forward+backward`, `step`, `inference`, `inference-batch-1`.
        settings: What was built, in words, for the record.
    """

    calls: Mapping[str, TimedCall]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One row of the table of entries.

    Attributes:
        name: What is measured, as `group/what/precision`; a call's name follows it in the record.
        precision: In which it computes.
        device: Kind of device that its row is about.
        build: Builds it on a device; tiny: with sizes that a test has time for.
        check: Compares it with float64 on the device; None: it is not ours, and is timed unchecked.
        check_key: Entries with the same key share one check.
    """

    name: str
    precision: PrecisionName
    device: Literal["cuda", "cpu"]
    build: Callable[[torch.device, bool], Workload]
    check: Callable[[torch.device, bool], GateReport] | None
    check_key: str
