"""Time of a training step on random patches."""

import statistics
import time
from dataclasses import dataclass

import torch

from scanseg.batches import Batch
from scanseg.models import network_of
from scanseg.planning import step_memory
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, autocast_dtype, describe_device, free_memory
from scanseg.specs import Plan
from scanseg.training.step import TrainingStep

_STEPS = 5
"""Steps after the first, which compiles and allocates."""
_SLOW_SECONDS = 5.0
"""A first step of more seconds is the measurement."""
_PART_OF_MEMORY = 0.8
"""Largest part of the free memory that a measured step may need."""


@dataclass(frozen=True)
class StepTiming:
    """Time of a training step."""

    device: str
    """Device with its name."""
    seconds: float | None
    """Median time of a step in seconds. `None`: the device has too little memory."""
    needed_bytes: float
    """Predicted memory of a step in bytes."""
    free_bytes: int
    """Free memory of the device in bytes."""


def time_step(plan: Plan, *, context: RunContext) -> StepTiming:
    """Measure the time of a training step.

    Steps are run on random patches, without reading, augmentation and CUDA graphs.

    Args:
        plan: The plan.
        context: Device and progress.

    Returns:
        The median of five steps after the first, or the first one if it takes more than five seconds.
    """
    device = context.torch_device
    dtype = autocast_dtype(device, plan.training.precision)
    needed = step_memory(plan, width=32 if dtype is None else 16).total_bytes
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    described = describe_device(device)
    if needed > _PART_OF_MEMORY * free:
        return StepTiming(described, None, needed, free)
    training = plan.training.model_copy(update={"cuda_graph": False})
    plan = plan.model_copy(update={"training": training})
    seconds: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        step = TrainingStep(plan, network_of(plan), autocast_dtype=dtype, context=context)
        batch = random_batch(plan, device)
        while len(seconds) < 1 + _STEPS and not (seconds and seconds[0] > _SLOW_SECONDS):
            started = time.perf_counter()
            step.run(batch, lr=1e-6).item()
            seconds.append(time.perf_counter() - started)
            context.progress(ProgressUpdate("timing steps", len(seconds), 1 + _STEPS))
    return StepTiming(described, statistics.median(seconds[1:] or seconds), needed, free)


def random_batch(plan: Plan, device: torch.device) -> Batch:
    """Return a random batch with the dtypes of a training."""
    sampling = plan.sampling
    shape = (sampling.batch_size, *sampling.patch_size)
    images = torch.randn(sampling.batch_size, plan.num_inputs, *sampling.patch_size, device=device)
    values = torch.tensor([0, *plan.dataset.label_values], dtype=torch.uint8, device=device)
    return Batch(images, values[torch.randint(len(values), shape, device=device)])
