"""Time the first step of a training without compiled kernels.

Usage: python -m benchmarks.first_step PLAN STORE --device cuda [--threads N] [-o benchmarks/results/NAME.json]

Four processes run one after the other. Each loads the case and puts the network on the device before its clock
starts. Kernels are compiled at their first launch (0 threads) and ahead of it (N threads), each with an empty
TRITON_CACHE_DIR and again with the filled one. The clock stops after step 1 on the device. The validation of a batch
is timed after it. The exit code is 1 if a process failed, or if the losses of the steps differ by more than the choice
of convolutions explains.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe_run
from scanseg.batches.batches import Batch, make_batch
from scanseg.batches.in_memory import load_into_memory
from scanseg.batches.sampling import TRAINING_STREAM
from scanseg.models import network_of
from scanseg.networks import encoder_network
from scanseg.ops._support.launching import cores_for_compiling
from scanseg.ops._support.triton import MISSING
from scanseg.preprocessing.store import Store
from scanseg.runtime import RunContext
from scanseg.runtime.device import autocast_dtype, choose_device
from scanseg.specs import Plan
from scanseg.training.step import TrainingStep

MAX_LOSS_DIFFERENCE = 0.02


def main(words: Sequence[str] | None = None) -> int:
    """Run the processes and return the exit code."""
    arguments = _parse(words)
    if arguments.alone is not None:
        sys.stdout.write(json.dumps(take_first_step(arguments, num_threads=arguments.alone)) + "\n")
        return 0
    runs = []
    for threads in (0, arguments.threads):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "filled"):
                run = _in_a_process(arguments, num_threads=threads, cache=cache)
                runs.append({"num_threads": threads, "cache": state, **run})
                print(describe(runs[-1]), flush=True)
    found = faults(runs)
    if arguments.output is not None:
        about = describe_run(choose_device(arguments.device), commit=arguments.commit)
        record = {**about, "plan": arguments.plan.name, "faults": found, "runs": runs}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for fault in found:
        print(fault)
    return 1 if found else 0


def take_first_step(arguments: argparse.Namespace, *, num_threads: int) -> dict[str, object]:
    """Prepare a training, time its first step, and return the measurements."""
    device, plan = choose_device(arguments.device), Plan.read(arguments.plan)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = plan.training.allow_tf32
    batch = _first_batch(plan, arguments.store, device)
    torch.manual_seed(plan.training.seed)
    network = network_of(plan)
    if num_threads == 0:  # the first pass of a network compiles ahead by itself
        encoder_network.compile_before_first_pass = lambda network, images: None
    step = TrainingStep(
        plan,
        network,
        context=RunContext(device=device),
        autocast_dtype=autocast_dtype(device, plan.training.precision),
        num_compiling_threads=num_threads,
    )
    kernels = count_compilations()
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    loss = float(step.run(batch, lr=plan.training.optimizer.lr))
    _wait(device)
    first = time.perf_counter()
    step.logits(batch)
    _wait(device)
    validated = time.perf_counter()
    step.run(batch, lr=plan.training.optimizer.lr)
    _wait(device)
    return {
        "first_step_seconds": first - start,
        "validation_seconds": validated - first,
        "second_step_seconds": time.perf_counter() - validated,
        "num_kernels_ahead": kernels.count(True),
        "num_kernels_at_launch": kernels.count(False),
        "loss": loss,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    }


def describe(run: dict) -> str:
    """Describe the step of a process in one line."""
    mode = f"{run['num_threads']} threads ahead" if run["num_threads"] else "at first launch"
    memory = run["peak_reserved_bytes"]
    peak = "" if memory is None else f", peak {memory / 2**30:.2f} GiB reserved"
    return (
        f"{mode}, {run['cache']} cache: step 1 {run['first_step_seconds']:.2f} s, "
        f"validation {run['validation_seconds']:.2f} s, step 2 {run['second_step_seconds']:.3f} s, "
        f"kernels {run['num_kernels_ahead']} ahead + {run['num_kernels_at_launch']} at launch, "
        f"loss {run['loss']:.4f}{peak}"
    )


def faults(runs: Sequence[dict]) -> list[str]:
    """Return the faults of the processes' steps."""
    found = []
    losses = [run["loss"] for run in runs]
    if not all(math.isfinite(loss) for loss in losses):
        found.append(f"a loss is not finite: {losses}")
    elif max(losses) - min(losses) > MAX_LOSS_DIFFERENCE:
        found.append(f"the first step's loss differs by more than {MAX_LOSS_DIFFERENCE}: {losses}")
    late = [run["num_kernels_at_launch"] for run in runs if run["num_threads"]]
    if any(late):
        found.append(f"kernels were compiled at their launch although compiled ahead: {late}")
    return found


def _first_batch(plan: Plan, store: Path, device: torch.device) -> Batch:
    """Make the first batch from the first case of a store."""
    opened = Store.open(store)
    names = [stored.case for stored in opened.index.cases][:1]
    return make_batch(
        load_into_memory(opened, names, context=RunContext(device=device), seed=plan.training.seed),
        plan.sampling,
        transforms=plan.augmentation,
        seed=plan.training.seed,
        stream=TRAINING_STREAM,
        iteration=0,
        device=device,
    )


def count_compilations() -> list[bool]:
    """Return a list that receives one entry per compiled kernel.

    An entry is True if the kernel was compiled ahead of its launch.
    """
    kernels: list[bool] = []
    if MISSING is None:
        import triton

        def note(*, is_manual_warmup: bool, **others: object) -> None:
            kernels.append(is_manual_warmup)

        triton.knobs.runtime.jit_post_compile_hook = note
    return kernels


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _in_a_process(arguments: argparse.Namespace, *, num_threads: int, cache: str) -> dict:
    """Take the step in a separate process."""
    words = [str(arguments.plan), str(arguments.store), "--device", arguments.device]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_step", *words, "--alone", str(num_threads)],
        env={**os.environ, "TRITON_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"the process with {num_threads} threads ended with {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_step",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("store", type=Path, help="folder of a store made for the plan")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--threads", type=int, default=cores_for_compiling(), help="threads that compile ahead"
    )
    parser.add_argument("--output", "-o", type=Path)
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument(
        "--alone", type=int, help="take the step in this process with this number of threads (internal)"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
