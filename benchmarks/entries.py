"""Benchmark entries: device, check and timed calls."""

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
    """An entry cannot run here: missing package or refused size."""


@dataclass(frozen=True)
class TimedCall:
    """A call to time.

    Attributes:
        call: Runs once.
        work: Least work of the call, by formula. `None`: the work is counted while the call runs.
        flush: Empty the cache of a GPU before every repetition.
        replays: Whether the call is also timed as a CUDA graph, and its floor counted. Compiled calls are not.
    """

    call: Call
    work: Work | None = None
    flush: bool = False
    replays: bool = True


@dataclass(frozen=True)
class Workload:
    """An entry, built on its device.

    Attributes:
        calls: Timed calls by name: `forward`, `forward+backward`, `step`, `inference`, `inference-batch-1`.
        settings: Description of the workload for the record.
    """

    calls: Mapping[str, TimedCall]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One row of the table of entries.

    Attributes:
        name: `group/shape/precision`. In the record, the name of a call follows it.
        precision: Precision of the computation.
        device: Kind of device of its row.
        build: Builds the workload on a device. The second argument asks for small sizes, for tests.
        check: Compares the entry with float64 on the device. `None`: the code is not ours, and is timed unchecked.
        check_key: Entries with the same key share one check.
    """

    name: str
    precision: PrecisionName
    device: Literal["cuda", "cpu"]
    build: Callable[[torch.device, bool], Workload]
    check: Callable[[torch.device, bool], GateReport] | None
    check_key: str
