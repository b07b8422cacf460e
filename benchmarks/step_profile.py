"""Profile training steps on real data: GPU utilisation and kernels.

Usage: python -m benchmarks.step_profile PLAN STORE --device cuda -o benchmarks/results/NAME.json [--set KEY=VALUE]

The steps are those of `scanseg train`: batches made ahead, several at once, on their own stream, forward and backward
as one CUDA graph, clipping, optimizer. First the steps are timed without the profiler, then the same number is
profiled. Choose a multiple of the number of batches made at once, which the record states. `busy` is the time in which
at least one kernel or copy runs, divided by the wall-clock time of the profiled steps. `busy_of_unprofiled` divides the
same kernel time by the time without the profiler, because the profiler slows the host.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import describe_run
from scanseg.batches.batches import make_batches, num_batches_at_once
from scanseg.batches.in_memory import load_into_memory
from scanseg.batches.sampling import TRAINING_STREAM
from scanseg.batches.shard import BatchShard
from scanseg.models import network_of
from scanseg.preprocessing.store import Store
from scanseg.runtime import RunContext
from scanseg.runtime.device import autocast_dtype, choose_device
from scanseg.runtime.distributed import SINGLE_PROCESS, Distributed
from scanseg.settings import apply_settings
from scanseg.specs import Plan
from scanseg.training.prefetch import BatchPrefetcher
from scanseg.training.step import TrainingStep

WARM_UPS = 20
"""Steps before the first timed one."""


def union_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the seconds covered by intervals in microseconds, overlaps once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total / 1e6


def make_step(
    plan: Plan, store: Store, device: torch.device, *, distributed: Distributed = SINGLE_PROCESS
) -> tuple[Callable[[], object], int]:
    """Make a function that runs the next training step.

    The training uses all cases of a store.

    Args:
        plan: Plan of the training.
        store: Store of the plan.
        device: GPU of this process.
        distributed: Processes that share each batch.

    Returns:
        The function, and the number of batches that are made at once.
    """
    names = [stored.case for stored in store.index.cases]
    cases = load_into_memory(store, names, context=RunContext(device=device), seed=plan.training.seed)
    torch.manual_seed(plan.training.seed)
    network = network_of(plan)
    dtype = autocast_dtype(device, plan.training.precision)
    context = RunContext(device=device, distributed=distributed)
    step = TrainingStep(plan, network.to(device), context=context, autocast_dtype=dtype)
    shard = BatchShard(distributed.rank, distributed.world_size)
    make = partial(
        make_batches,
        cases,
        plan.sampling,
        transforms=plan.augmentation,
        seed=plan.training.seed,
        stream=TRAINING_STREAM,
        device=device,
        shard=shard,
    )
    at_once = num_batches_at_once(cases, plan.sampling, device=device, shard=shard)
    batches = BatchPrefetcher(lambda iterations: make(iterations=iterations), device=device, at_once=at_once)

    def run_step() -> None:
        step.run(batches.take(step.iterations_done), lr=1e-3)
        batches.prepare()

    return run_step, at_once


def profile_steps(step: Callable[[], object], *, num_steps: int) -> dict[str, object]:
    """Time steps, then profile the same number.

    Args:
        step: Runs a step on the current GPU.
        num_steps: Number of steps.
    """
    for _ in range(WARM_UPS):
        step()
    plain_seconds = time_steps(step, num_steps)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        wall_seconds = time_steps(step, num_steps)
    kernels = [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    by_name: dict[str, list[float]] = defaultdict(list)
    for name, begin, end in kernels:
        by_name[name].append((end - begin) / 1e3)
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:40]
    busy_seconds = union_seconds((begin, end) for _, begin, end in kernels)
    return {
        "num_steps": num_steps,
        "ms_a_step": 1e3 * plain_seconds / num_steps,
        "ms_a_profiled_step": 1e3 * wall_seconds / num_steps,
        "kernel_ms_a_step": 1e3 * busy_seconds / num_steps,
        "busy": busy_seconds / wall_seconds,
        "busy_of_unprofiled": busy_seconds / plain_seconds,
        "num_kernels_a_step": len(kernels) / num_steps,
        "longest": [
            {
                "kernel": name[:120],
                "ms_a_step": sum(times) / num_steps,
                "calls_a_step": len(times) / num_steps,
            }
            for name, times in longest
        ],
    }


def time_steps(step: Callable[[], object], num_steps: int) -> float:
    """Return the seconds of a number of steps on the current GPU.

    Args:
        step: Runs a step.
        num_steps: Number of steps.
    """
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(num_steps):
        step()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main(words: Sequence[str] | None = None) -> int:
    """Profile steps, write the record and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_profile",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("store", type=Path, help="folder of a store made for the plan")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", help="setting of the plan, as in scanseg train"
    )
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    arguments = parser.parse_args(words)
    device = choose_device(arguments.device)
    if device.type != "cuda":
        print(f"--device: expected a GPU with CUDA to profile kernels, got {device}", file=sys.stderr)
        return 2
    plan = apply_settings(Plan.read(arguments.plan), arguments.settings)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = plan.training.allow_tf32
    step, at_once = make_step(plan, Store.open(arguments.store), device)
    result = profile_steps(step, num_steps=arguments.steps)
    settings = {"plan": arguments.plan.name, "settings": arguments.settings, "network": plan.network.kind}
    described = {**describe_run(device, commit=arguments.commit), **settings, "batches_at_once": at_once}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({**described, **result}, indent=1) + "\n", encoding="utf-8")
    print(
        f"{arguments.plan.name}: {result['ms_a_step']:.2f} ms a step ({result['ms_a_profiled_step']:.2f} profiled), "
        f"kernels {result['kernel_ms_a_step']:.2f} ms, busy {result['busy']:.1%} of the profiled and "
        f"{result['busy_of_unprofiled']:.1%} of the unprofiled time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
