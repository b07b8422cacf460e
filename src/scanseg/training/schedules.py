"""Learning rate schedules."""

import math

from scanseg.specs import ScheduleSpec


def learning_rate(spec: ScheduleSpec, *, lr: float, progress: float) -> float:
    """Return the learning rate at a point of the training.

    Args:
        spec: The schedule.
        lr: Highest learning rate.
        progress: Finished fraction of the training, from 0 to 1.
    """
    if progress < spec.warmup_fraction:
        return lr * min(1.0, max(progress, 1e-3) / spec.warmup_fraction)
    remaining = 1 - (progress - spec.warmup_fraction) / (1 - spec.warmup_fraction) if progress < 1 else 0.0
    match spec.kind:
        case "poly":
            share = remaining**spec.power
        case "cosine":
            share = 0.5 * (1 - math.cos(math.pi * remaining))
        case "constant":
            share = 1.0
    return spec.final_lr + (lr - spec.final_lr) * share
