"""Train in float16 on real data and count nonfinite values.

Usage: python -m benchmarks.fp16_run PLAN STORE --device cuda -o benchmarks/results/NAME.json [--steps 1000]

The steps are those of `scanseg train`: autocast, a scaled loss, gradient clipping, one CUDA graph. A step whose
gradients are not finite is skipped and halves the scale, which is expected early on. The exit code is 1 if a loss or a
parameter is not finite, if the scale has fallen below 1, or if more than one step in fifty was skipped.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import describe_run
from scanseg.batches.batches import Batch, make_batch
from scanseg.batches.in_memory import load_into_memory
from scanseg.batches.sampling import TRAINING_STREAM
from scanseg.models import network_of
from scanseg.preprocessing.store import Store
from scanseg.runtime import RunContext
from scanseg.runtime.device import autocast_dtype, choose_device
from scanseg.specs import Plan
from scanseg.training.schedules import learning_rate
from scanseg.training.step import TrainingStep

MAX_SKIPPED = 0.02
MIN_SCALE = 1.0


def run_steps(
    step: TrainingStep, batch: Callable[[int], Batch], *, num_steps: int, lr: Callable[[float], float]
) -> dict[str, object]:
    """Take steps and return the measurements of each.

    Args:
        step: Training step, at its first iteration.
        batch: Makes the batch of an iteration.
        num_steps: Number of steps.
        lr: Learning rate by the completed part of the training.
    """
    losses: list[Tensor] = []
    bad: list[Tensor] = []
    scales: list[float] = []
    for iteration in range(num_steps):
        losses.append(step.run(batch(iteration), lr=lr(iteration / num_steps)))
        bad.append(_count_nonfinite(step))
        scales.append(step.loss_scale or 1.0)
    values = [float(loss) for loss in torch.stack(losses).cpu()]
    counts = [int(count) for count in torch.stack(bad).cpu()]
    return {
        "num_steps": num_steps,
        "all_losses_finite": all(math.isfinite(value) for value in values),
        "all_parameters_finite": all(bool(p.isfinite().all()) for p in step.network.parameters()),
        "num_skipped_steps": sum(count > 0 for count in counts),
        "lowest_loss_scale": min(scales),
        "loss": [value if math.isfinite(value) else None for value in values],
        "loss_scale": scales,
        "nonfinite_gradients": counts,
    }


def _count_nonfinite(step: TrainingStep) -> Tensor:
    gradients = [parameter.grad for parameter in step.network.parameters() if parameter.grad is not None]
    return torch.stack([(~gradient.isfinite()).sum() for gradient in gradients]).sum()


def faults(record: dict) -> list[str]:
    """Return the faults of a run."""
    found = []
    if not record["all_losses_finite"]:
        found.append(f"{record['loss'].count(None)} losses are not finite")
    if not record["all_parameters_finite"]:
        found.append("parameters are not finite")
    if record["lowest_loss_scale"] < MIN_SCALE:
        found.append(f"the scale of the loss fell to {record['lowest_loss_scale']}, below {MIN_SCALE}")
    if record["num_skipped_steps"] > max(MAX_SKIPPED * record["num_steps"], 10):
        found.append(f"{record['num_skipped_steps']} of {record['num_steps']} steps were skipped")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Train, write the record and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fp16_run",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("store", type=Path, help="folder of a store made for the plan")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--precision", choices=["float16", "bfloat16"], default="float16")
    parser.add_argument("--max-cases", type=int, help="train on this number of cases only")
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    arguments = parser.parse_args(words)
    device, plan = choose_device(arguments.device), Plan.read(arguments.plan)
    torch.backends.cudnn.benchmark = True
    store = Store.open(arguments.store)
    names = [stored.case for stored in store.index.cases][: arguments.max_cases]
    cases = load_into_memory(store, names, context=RunContext(device=device), seed=plan.training.seed)
    batch = partial(
        make_batch,
        cases,
        plan.sampling,
        transforms=plan.augmentation,
        seed=plan.training.seed,
        stream=TRAINING_STREAM,
        device=device,
    )
    torch.manual_seed(plan.training.seed)
    network = network_of(plan)
    step = TrainingStep(
        plan, network, context=RunContext(device=device), autocast_dtype=_dtype(device, arguments.precision)
    )
    record = run_steps(
        step,
        lambda iteration: batch(iteration=iteration),
        num_steps=arguments.steps,
        lr=lambda progress: learning_rate(
            plan.training.schedule, lr=plan.training.optimizer.lr, progress=progress
        ),
    )
    found = faults(record)
    settings = {"plan": arguments.plan.name, "precision": arguments.precision, "num_cases": len(names)}
    described = {**describe_run(device, commit=arguments.commit), "network": plan.network.kind, **settings}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({**described, "faults": found, **record}) + "\n", encoding="utf-8")
    losses = [value for value in record["loss"] if value is not None]
    print(
        f"{plan.network.kind}, {arguments.precision}, {arguments.steps} steps: "
        f"loss {losses[0]:.3f} to {losses[-1]:.3f}, "
        f"{record['num_skipped_steps']} skipped, scale {record['loss_scale'][-1]:g}; {'; '.join(found) or 'finite'}"
    )
    return 1 if found else 0


def _dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """Return the dtype of products.

    On a CPU it may be float16, which `scanseg train` refuses there because it is slow.
    """
    if device.type == "cpu":
        return torch.float16 if precision == "float16" else torch.bfloat16
    return autocast_dtype(device, "float16" if precision == "float16" else "bfloat16")


if __name__ == "__main__":
    sys.exit(main())
