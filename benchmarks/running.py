"""Runs entries: checks and times them, and continues after failures."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch

from benchmarks.entries import DTYPES, Entry, TimedCall, UnavailableError
from benchmarks.gates import GateReport
from benchmarks.measuring import capture, measure
from benchmarks.roofline import counted_floor_seconds, floor_seconds, rates_of

Row = dict[str, object]


class DeviceLostError(Exception):
    """A call broke the context of the GPU in this process."""


@dataclass
class Runner:
    """Runs entries on one device.

    Attributes:
        device: Device of all calls.
        device_name: Name of the device, which selects its rates.
        seconds: Time for the timed calls of each row.
        end: Time of the monotonic clock after which no entry starts.
        tiny: Shrink every entry, for tests.
    """

    device: torch.device
    device_name: str
    seconds: float
    end: float
    tiny: bool
    _checks: dict[str, GateReport] = field(default_factory=dict)

    def run(self, entry: Entry) -> list[Row]:
        """Return the rows of an entry, or one row with a reason.

        Each call of the entry has one row.

        Raises:
            DeviceLostError: The GPU no longer responds in this process.
        """
        base: Row = {"entry": entry.name, "precision": entry.precision}
        if time.monotonic() > self.end:
            return [{**base, "status": "not run", "reason": "the time limit of the run was reached"}]
        begin = time.monotonic()
        try:
            with _settings(tf32=entry.precision == "tf32", benchmark=True):
                rows = [{**base, **row} for row in self._run(entry)]
        except UnavailableError as error:
            rows = [{**base, "status": "skipped", "reason": str(error)}]
        except torch.OutOfMemoryError as error:
            rows = [{**base, "status": "out of memory", "reason": _first_line(error)}]
        except Exception as error:  # the other entries must run
            rows = [{**base, "status": "failed", "reason": f"{type(error).__name__}: {_first_line(error)}"}]
        self._free()
        rows[0]["seconds"] = round(time.monotonic() - begin, 1)
        return rows

    def _run(self, entry: Entry) -> Iterator[Row]:
        """Check the entry and time its calls."""
        report = self._check(entry)
        checked: Row = {"check": None if report is None else asdict(report)}
        if report is not None and not report.passed:
            exceeded = {
                name: error for name, error in report.errors.items() if not error <= report.bounds[name]
            }
            yield {**checked, "status": "check failed", "reason": f"errors above their bounds: {exceeded}"}
            return
        workload = entry.build(self.device, self.tiny)
        for name, timed in workload.calls.items():
            yield {**checked, "call": name, "settings": workload.settings, **self._time(entry, timed)}

    def _check(self, entry: Entry) -> GateReport | None:
        """Return the check of an entry, run once per key."""
        if entry.check is None:
            return None
        if entry.check_key not in self._checks:
            # Choosing convolution kernels for float64 by measuring would take longer than the check.
            with _settings(tf32=entry.precision == "tf32", benchmark=False):
                self._checks[entry.check_key] = entry.check(self.device, self.tiny)
            self._free()
        return self._checks[entry.check_key]

    def _time(self, entry: Entry, timed: TimedCall) -> Row:
        """Time a call and its replay, and compute its floor.

        Only a GPU replays calls.
        """
        try:
            eager = measure(timed.call, self.device, seconds=self.seconds, flush=timed.flush)
        except torch.OutOfMemoryError as error:
            return {"status": "out of memory", "reason": _first_line(error)}
        row: Row = {"status": "measured", "eager": asdict(eager), "floor_ms": None}
        if not timed.replays:
            return row
        try:
            row["floor_ms"] = self._floor_ms(entry, timed)
        except Exception as error:  # the times are valid without a floor
            row["floor_reason"] = f"{type(error).__name__}: {_first_line(error)}"
        if self.device.type == "cuda":
            self._free()
            row.update(self._time_replay(timed))
        return row

    def _time_replay(self, timed: TimedCall) -> Row:
        """Time the replay of a call, or explain its failure."""
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            replay = capture(timed.call)
            peak_gib = torch.cuda.max_memory_allocated(self.device) / 2**30
            timing = measure(replay, self.device, seconds=self.seconds, flush=timed.flush)
        except Exception as error:
            return {"replay": None, "replay_reason": f"{type(error).__name__}: {_first_line(error)}"}
        return {"replay": asdict(replace(timing, peak_gib=peak_gib))}

    def _floor_ms(self, entry: Entry, timed: TimedCall) -> float | None:
        """Return the floor of a call, or None for an unknown device."""
        rates = rates_of(self.device_name) if self.device.type == "cuda" else None
        if rates is None:
            return None
        tf32 = entry.precision == "tf32"
        if timed.work is None:
            return 1e3 * counted_floor_seconds(timed.call, tf32=tf32, rates=rates)
        return 1e3 * floor_seconds(timed.work, dtype=DTYPES[entry.precision], tf32=tf32, rates=rates)

    def _free(self) -> None:
        """Free memory and check that the device still responds."""
        gc.collect()
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.zeros(1, device=self.device).item()
        except torch.OutOfMemoryError:
            return
        except RuntimeError as error:
            raise DeviceLostError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


@contextmanager
def _settings(*, tf32: bool, benchmark: bool) -> Iterator[None]:
    """Set TF32 and cuDNN's choice of kernels by measuring in this block."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def profile(call: Callable[[], object]) -> str:
    """Return a table of the slowest kernels of a call."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    return profiler.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60
    )


def summary(row: Mapping[str, object]) -> str:
    """Describe a row in one line for the console."""
    words = f"{row['entry']} {row.get('call', '')}".strip()
    if row["status"] != "measured":
        return f"{words}: {row['status']}: {row.get('reason')}"
    times = [f"{kind} {row[kind]['median_ms']:.3f} ms" for kind in ("eager", "replay") if row.get(kind)]
    if row.get("replay_reason"):
        times.append(f"no replay: {row['replay_reason']}")
    if row.get("floor_ms") is not None:
        times.append(f"floor {row['floor_ms']:.3f} ms")
    peak = row["eager"]["peak_gib"]
    return f"{words}: {', '.join(times)}" + (f", peak {peak:.2f} GiB" if peak else "")
