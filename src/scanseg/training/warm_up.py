"""Compilation of all GPU kernels of a plan."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder, is_ensemble, member_folders, network_of
from scanseg.networks import place_network
from scanseg.ops import cores_for_compiling, describe_backends
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, autocast_dtype, describe_device, memory_for
from scanseg.specs import Plan
from scanseg.training.arithmetic import fast_arithmetic
from scanseg.training.kernel_compilation import compile_kernels
from scanseg.training.step import TrainingStep
from scanseg.training.step_timing import random_batch

Purpose = Literal["training", "prediction"]


@dataclass(frozen=True)
class WarmUp:
    """Result of a warm-up."""

    device: str
    """Device with its name."""
    purposes: tuple[Purpose, ...]
    """Uses whose kernels are compiled now."""
    num_kernels: int
    """Number of kernels of the plans, compiled now or before."""
    seconds: float
    """Duration in seconds."""


def read_plans(path: Path) -> list[Plan]:
    """Read the plans of a plan file, a model folder or an ensemble.

    Args:
        path: File or folder.

    Returns:
        The plans, each once.

    Raises:
        InputError: The path is missing, the file is no plan, or the folder is no model.
    """
    if path.is_file():
        return [Plan.read(path)]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Give a plan file or a model folder.")
    plans: list[Plan] = []
    for folder in member_folders(path):
        model = ModelFolder.open(folder)
        plans.append(model.plan)
        first = model.first_stage_path
        if model.plan.cascade is not None and (is_ensemble(first) or ModelFolder.exists(first)):
            plans += read_plans(first)
    return [plan for number, plan in enumerate(plans) if plan not in plans[:number]]


def warm_up(plans: Collection[Plan], *, purposes: tuple[Purpose, ...], context: RunContext) -> WarmUp:
    """Compile the GPU kernels of plans and fill Triton's cache.

    A step or a prediction of random images runs for each plan, with random weights. It also makes the checks of kernels
    at their first use. Nothing is written besides the caches.

    Args:
        plans: The plans.
        purposes: `training`, `prediction` or both.
        context: A GPU with CUDA, and progress.

    Raises:
        UsageError: The device is no GPU with CUDA, or Triton is missing.
        ScansegError: A plan does not fit into memory.
    """
    device = context.torch_device
    _require_kernels(device)
    started, counter = time.perf_counter(), _Counter(context)
    context = context.with_progress(counter)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for plan in plans:
            with memory_for("a warm-up of the plan", device=device):
                if "training" in purposes:
                    _train(plan, context)
                if "prediction" in purposes:
                    _predict(plan, context)
    seconds = time.perf_counter() - started
    return WarmUp(describe_device(device), purposes, counter.num_kernels, seconds)


class _Counter:
    """Progress callback that counts kernels."""

    def __init__(self, context: RunContext) -> None:
        self._progress, self.num_kernels = context.progress, 0

    def __call__(self, update: ProgressUpdate) -> None:
        """Count the kernels of a block, and pass the update on."""
        if update.done == update.total:
            self.num_kernels += update.total
        self._progress(update)


def _require_kernels(device: torch.device) -> None:
    """Check that Triton kernels run on a device.

    Raises:
        UsageError: The device is no GPU with CUDA, or Triton is missing.
    """
    if device.type != "cuda":
        raise UsageError(
            f"warm-up: expected a GPU with CUDA, got {device}. Only kernels of GPUs are compiled, so no warm-up is "
            "needed on this device."
        )
    missing = _missing_triton()
    if missing is not None:
        raise UsageError(f"warm-up: {missing}")


def can_compile(device: torch.device) -> bool:
    """Return whether the kernels of this package are compiled for a device.

    Args:
        device: Any device.
    """
    return device.type == "cuda" and _missing_triton() is None


def _missing_triton() -> str | None:
    return next(status.reason for status in describe_backends() if status.backend == "triton")


def _train(plan: Plan, context: RunContext) -> None:
    """Run a training step, and the validation of a batch."""
    device = context.torch_device
    training = plan.training.model_copy(update={"cuda_graph": False})
    plan = plan.model_copy(update={"training": training})
    dtype = autocast_dtype(device, plan.training.precision)
    with fast_arithmetic(device, allow_tf32=training.allow_tf32):
        step = TrainingStep(plan, network_of(plan), autocast_dtype=dtype, context=context)
        batch = random_batch(plan, device)
        step.run(batch, lr=1e-6).item()
        step.logits(batch)


def _predict(plan: Plan, context: RunContext) -> None:
    """Run the network on a full batch of windows, and on one window."""
    device = context.torch_device
    network: nn.Module = place_network(network_of(plan), device).eval()
    dtype = autocast_dtype(device, plan.training.precision)
    shape = (plan.num_inputs, *plan.sampling.patch_size)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        for number in sorted({plan.inference.window_batch, 1}):
            windows = torch.randn(number, *shape, device=device)
            compile_kernels(
                partial(network, windows),
                network,
                num_threads=cores_for_compiling(),
                context=context,
            )
            network(windows)
