"""Compare training steps on one and on several GPUs of a machine.

Usage: python -m benchmarks.scaling PLAN STORE --gpus 2 -o benchmarks/results/NAME.json [--set KEY=VALUE]

The steps are those of `scanseg train` and of `torchrun -m scanseg train`, with real data: batches made ahead, forward
and backward, gradients averaged over the processes, clipping, optimizer. Four trainings are timed for the batch size B
of the plan and N GPUs:

- `one`: B patches on one GPU.
- `share`: B / N patches on one GPU. This is the limit of strong scaling if messages were free.
- `strong`: B patches on N GPUs, B / N on each.
- `weak`: N x B patches on N GPUs, B on each.

`strong_scaling` is the time of `one` divided by that of `strong`. `weak_efficiency` is the time of `one` divided by
that of `weak`. Each training is timed in several rounds. The record has the median and all rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.machine import describe_run
from benchmarks.step_profile import WARM_UPS, make_step, time_steps
from scanseg.preprocessing.store import Store
from scanseg.runtime import join_processes
from scanseg.settings import apply_settings
from scanseg.specs import Plan

_ROUNDS = 5


def summarize(rounds: dict[str, list[float]]) -> dict[str, object]:
    """Return medians and ratios of the timed trainings.

    Args:
        rounds: Milliseconds of a step in each round, by training: `one`, `share`, `strong`, `weak`.
    """
    median = {name: statistics.median(times) for name, times in rounds.items()}
    return {
        "ms_a_step": {name: round(time, 3) for name, time in median.items()},
        "rounds_ms": {name: [round(time, 3) for time in times] for name, times in rounds.items()},
        "strong_scaling": round(median["one"] / median["strong"], 3),
        "strong_scaling_without_messages": round(median["one"] / median["share"], 3),
        "weak_efficiency": round(median["one"] / median["weak"], 3),
    }


def _time_in_this_process(arguments: argparse.Namespace) -> None:
    """Time steps, alone or as one of the processes of torchrun, and write the times."""
    plan = apply_settings(Plan.read(arguments.plan), arguments.settings)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = plan.training.allow_tf32
    with join_processes("cuda") as (distributed, device), _shown_at_once():
        found = {}
        for size in arguments.batch_sizes:
            sized = apply_settings(plan, [f"sampling.batch_size={size}"])
            step, _ = make_step(sized, Store.open(arguments.store), device, distributed=distributed)
            for _ in range(WARM_UPS):
                step()
            times = [1e3 * time_steps(step, arguments.steps) / arguments.steps for _ in range(_ROUNDS)]
            del step
            # A step ends when the slowest process has its gradients.
            found[size] = [max(of_round) for of_round in zip(*distributed.gather_numbers(times), strict=True)]
        if distributed.is_main_process:
            arguments.output.write_text(json.dumps(found), encoding="utf-8")


@contextmanager
def _shown_at_once() -> Iterator[None]:
    """Print an error before the other processes are told of it, which may take long."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        raise


def _time_trainings(
    arguments: argparse.Namespace, *, num_gpus: int, batch_sizes: Sequence[int]
) -> dict[int, list[float]]:
    """Time trainings one after the other in processes of their own.

    Returns:
        Milliseconds of a step in each round, by batch size.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "times.json")
        launcher = ["torch.distributed.run", f"--nproc-per-node={num_gpus}", "-m"] if num_gpus > 1 else []
        words = ["benchmarks.scaling", str(arguments.plan), str(arguments.store), "-o", str(output)]
        words += ["--steps", str(arguments.steps), "--batch-sizes", *map(str, batch_sizes)]
        for setting in arguments.settings:
            words += ["--set", setting]
        subprocess.run([sys.executable, "-m", *launcher, *words], check=True)
        found = json.loads(output.read_text(encoding="utf-8"))
        return {int(size): [float(time) for time in times] for size, times in found.items()}


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("store", type=Path, help="folder of a store made for the plan")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100, help="steps of each round")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", help="setting of the plan, as in scanseg train"
    )
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[], help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Time the trainings, write the record and return the exit code."""
    arguments = _parse(words)
    if arguments.batch_sizes:
        _time_in_this_process(arguments)
        return 0
    plan = apply_settings(Plan.read(arguments.plan), arguments.settings)
    batch_size, gpus = plan.sampling.batch_size, arguments.gpus
    if torch.cuda.device_count() < gpus or gpus < 2:
        print(
            f"--gpus: expected at least 2 and at most the GPUs of this machine ({torch.cuda.device_count()}), "
            f"got {gpus}",
            file=sys.stderr,
        )
        return 2
    if batch_size % gpus:
        print(f"batch_size {batch_size} is not divisible by {gpus} GPUs", file=sys.stderr)
        return 2
    one = _time_trainings(arguments, num_gpus=1, batch_sizes=[batch_size, batch_size // gpus])
    several = _time_trainings(arguments, num_gpus=gpus, batch_sizes=[batch_size, gpus * batch_size])
    rounds = {
        "one": one[batch_size],
        "share": one[batch_size // gpus],
        "strong": several[batch_size],
        "weak": several[gpus * batch_size],
    }
    described = describe_run(torch.device("cuda"), commit=arguments.commit)
    settings = {"plan": arguments.plan.name, "settings": arguments.settings, "network": plan.network.kind}
    sizes_of = {"gpus": gpus, "batch_size": batch_size, "steps_a_round": arguments.steps}
    result = summarize(rounds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    record = {**described, **settings, **sizes_of, **result}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "rounds_ms"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
