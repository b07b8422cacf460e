"""Time the first training step of a network in a plain PyTorch loop, without compiled kernels.

Usage: python -m benchmarks.first_pass [--networks msvm-unet xlstm-unet-enc] [-o benchmarks/results/NAME.json]

With `--threads-only` no other processes compile kernels, for comparison.

Each network runs in a process with empty caches of Triton and of the checks of kernels, and in another one with the
filled caches. The step is that of a program of the user's own: forward in bfloat16 autocast, a loss, backward. Its
kernels are compiled in threads, and checked. The exit code is 1 if the log was silent for longer than three seconds.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.first_step import count_compilations
from benchmarks.machine import describe_run
from scanseg.networks import MSVMUNet, XLSTMUNet, place_network
from scanseg.ops import kernel_verdicts
from scanseg.ops._support import compile_processes
from scanseg.ops._support.compile_processes import CompileProcesses
from scanseg.runtime.device import choose_device

NETWORKS = {
    "msvm-unet": (lambda: MSVMUNet(3, 9), (32, 3, 224, 224)),
    "xlstm-unet-enc": (lambda: XLSTMUNet(1, 14, patch_size=(48, 160, 224)), (2, 1, 48, 160, 224)),
}
TINY = {
    "msvm-unet": (lambda: MSVMUNet(3, 9, dims=(8, 16, 24, 32), depths=(1, 1, 1, 1)), (2, 3, 64, 64)),
    "xlstm-unet-enc": (
        lambda: XLSTMUNet(1, 2, strides=((1, 1), (2, 2)), features=(4, 8), patch_size=(32, 32)),
        (2, 1, 32, 32),
    ),
}
MAX_SILENCE = 3.0
"""Longest time without a message in seconds. Messages come every two seconds."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the processes and return the exit code."""
    arguments = _parse(words)
    if arguments.alone:
        if arguments.threads_only:
            compile_processes.FEWEST_CORES = sys.maxsize
        step = take_first_step(arguments.networks[0], device=arguments.device, tiny=arguments.tiny)
        sys.stdout.write(json.dumps(step) + "\n")
        return 0
    runs = []
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as caches:
            for state in ("empty", "filled"):
                runs.append({"network": network, "cache": state, **_in_a_process(network, arguments, caches)})
                print(describe(runs[-1]), flush=True)
    if arguments.output is not None:
        record = {**describe_run(choose_device(arguments.device), commit=arguments.commit), "runs": runs}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if any(run["longest_silence_seconds"] > MAX_SILENCE for run in runs) else 0


def take_first_step(name: str, *, device: str, tiny: bool) -> dict[str, object]:
    """Take two steps with a network and return the measurements."""
    chosen = choose_device(device)
    make, shape = (TINY if tiny else NETWORKS)[name]
    torch.manual_seed(0)
    network = place_network(make(), chosen)
    images = torch.randn(shape, device=chosen)
    kernels, in_processes, times = count_compilations(), _count_in_processes(), _message_times()
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        if not seconds:
            times.append(started)
        with torch.autocast(chosen.type, dtype=torch.bfloat16):
            outputs = network(images)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        sum(output.float().square().mean() for output in outputs).backward()
        if chosen.type == "cuda":
            torch.cuda.synchronize(chosen)
        seconds.append(time.perf_counter() - started)
        if len(seconds) == 1:
            times.append(time.perf_counter())
    return {
        "first_step_seconds": seconds[0],
        "second_step_seconds": seconds[1],
        "num_kernels_ahead": kernels.count(True),
        "num_kernels_at_launch": kernels.count(False),
        "num_kernels_in_processes": in_processes.count(True),
        "num_messages": len(times) - 2,
        "longest_silence_seconds": max(after - before for before, after in pairwise(times)),
        "verdicts": [f"{v.operator} {v.dtype}: {v.fault or 'correct'}" for v in kernel_verdicts()],
    }


def describe(run: dict) -> str:
    """Describe the steps of a process in one line."""
    return (
        f"{run['network']}, {run['cache']} caches: step 1 {run['first_step_seconds']:.2f} s, "
        f"step 2 {run['second_step_seconds']:.3f} s, kernels {run['num_kernels_ahead']} ahead + "
        f"{run['num_kernels_at_launch']} at launch ({run['num_kernels_in_processes']} in processes), "
        f"{len(run['verdicts'])} checks, longest silence {run['longest_silence_seconds']:.1f} s"
    )


def _count_in_processes() -> list[bool]:
    """Return a list that receives whether another process compiled a kernel, for each request."""
    results: list[bool] = []
    original = CompileProcesses.compile

    def compile_and_note(processes: CompileProcesses, request: bytes) -> bool:
        results.append(original(processes, request))
        return results[-1]

    CompileProcesses.compile = compile_and_note  # type: ignore[method-assign]
    return results


def _message_times() -> list[float]:
    """Return a list that receives the time of each message in the log."""
    times: list[float] = []

    class Times(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            times.append(time.perf_counter())

    logging.getLogger("scanseg").addHandler(Times(logging.WARNING))
    return times


def _in_a_process(network: str, arguments: argparse.Namespace, caches: str) -> dict:
    """Take the steps in a separate process."""
    words = ["--networks", network, "--device", arguments.device, "--alone"]
    words += ["--threads-only"] if arguments.threads_only else []
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_pass", *words, *(["--tiny"] if arguments.tiny else [])],
        env={**os.environ, "TRITON_CACHE_DIR": f"{caches}/triton", "XDG_CACHE_HOME": caches},
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"the process of {network} ended with {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_pass",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", "-o", type=Path)
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument("--tiny", action="store_true", help="shrink the networks, for tests of this program")
    parser.add_argument("--threads-only", action="store_true", help="compile in threads of the process")
    parser.add_argument("--alone", action="store_true", help="take the steps in this process (internal)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
