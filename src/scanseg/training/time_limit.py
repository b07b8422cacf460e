"""The end of a training: by epochs or by a time limit."""

from scanseg.specs import TrainingSpec

_SCORING_PART = 0.1
"""Largest part of a time limit that scoring validation patches takes once."""
_SCORING_STEP = 1 / 3
"""Expected time of scoring a batch, in training steps."""


def finished_fraction(
    training: TrainingSpec,
    *,
    iterations: int,
    iterations_per_epoch: int,
    seconds: float,
    num_batches: int,
) -> float:
    """Return the finished fraction of a training, from 0 to 1.

    It is the larger one of the fractions of iterations and of the time limit. Time for the last scoring of validation
    patches is reserved.

    Args:
        training: Epochs and time limit.
        iterations: Optimizer steps.
        iterations_per_epoch: Steps of an epoch.
        seconds: Training time in seconds.
        num_batches: Batches of validation patches that are scored. 0: none.
    """
    done = iterations / (training.epochs * iterations_per_epoch)
    if training.max_minutes is not None:
        limit = 60 * training.max_minutes
        expected = num_batches * _scoring_seconds(iterations=iterations, seconds=seconds)
        done = max(done, seconds / (limit - min(expected, _SCORING_PART * limit)))
    return min(done, 1.0)


def affordable_batches(training: TrainingSpec, *, iterations: int, seconds: float) -> int:
    """Return the number of batches of validation patches to score.

    With a time limit, scoring takes about a tenth of it at most.

    Args:
        training: Planned batches and time limit.
        iterations: Optimizer steps.
        seconds: Training time in seconds.
    """
    planned = training.validation_batches
    each = _scoring_seconds(iterations=iterations, seconds=seconds)
    if training.max_minutes is None or each == 0:
        return planned
    return max(1, min(planned, int(_SCORING_PART * 60 * training.max_minutes / each)))


def _scoring_seconds(*, iterations: int, seconds: float) -> float:
    """Return the expected time of scoring a batch in seconds."""
    return _SCORING_STEP * seconds / iterations if iterations else 0.0
