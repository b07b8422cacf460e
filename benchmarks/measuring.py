"""Times and peak memory of a call, launched or replayed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Call = Callable[[], object]

FLUSH_BYTES = 256 << 20
"""Bytes written between the repetitions of a small call, so the cache does not contain its inputs."""
MIN_CALLS = 5
"""Least number of timed calls, however long they take."""
_WARM_UPS = 3


@dataclass(frozen=True)
class Timing:
    """Times of single calls in milliseconds, and their peak memory."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    num_calls: int
    peak_gib: float | None
    """Peak memory in GiB. `None` on the CPU."""


def measure(call: Call, device: torch.device, *, seconds: float, flush: bool) -> Timing:
    """Warm up, then time single calls.

    Args:
        call: The call to time.
        device: Its device.
        seconds: Time for the timed calls. At least five calls are timed.
        flush: Empty the cache of a GPU before every call, outside of the time.
    """
    for _ in range(_WARM_UPS):
        call()
    if device.type != "cuda":
        return _timing(_host_times(call, seconds), peak_gib=None)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    peak_gib = torch.cuda.max_memory_allocated(device) / 2**30
    return _timing(_event_times(call, device, seconds=seconds, flush=flush), peak_gib=peak_gib)


def _host_times(call: Call, seconds: float) -> list[float]:
    times: list[float] = []
    end_of_measuring = time.perf_counter() + seconds
    while len(times) < MIN_CALLS or time.perf_counter() < end_of_measuring:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def _event_times(call: Call, device: torch.device, *, seconds: float, flush: bool) -> list[float]:
    """Return times measured by the device's events.

    A time includes all kernels of the call, from the start of the first to the end of the last, and waits in between.
    """
    cache = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if flush else None
    times: list[float] = []
    end_of_measuring = time.perf_counter() + seconds
    while len(times) < MIN_CALLS or time.perf_counter() < end_of_measuring:
        if cache is not None:
            cache.zero_()
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        torch.cuda.synchronize(device)
        times.append(before.elapsed_time(after) / 1e3)
    return times


def _timing(times: list[float], *, peak_gib: float | None) -> Timing:
    quantiles = statistics.quantiles(times, n=5)
    return Timing(
        median_ms=1e3 * statistics.median(times),
        p20_ms=1e3 * quantiles[0],
        p80_ms=1e3 * quantiles[3],
        num_calls=len(times),
        peak_gib=peak_gib,
    )


def capture(call: Call) -> Call:
    """Return the replay of a call as a CUDA graph.

    The replay writes its results into the tensors of the captured call.

    Args:
        call: Launches work on the current GPU and reads no value back to the host.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay
