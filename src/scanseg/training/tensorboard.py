"""Write the metrics for TensorBoard, if it is installed."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import JsonValue

FOLDER = "tensorboard"


class TensorBoardLog:
    """Write the metrics of each epoch as events.

    Without TensorBoard nothing is written.
    """

    def __init__(self, model: Path, *, iterations_done: int) -> None:
        """Open the log and drop events after the last checkpoint.

        Args:
            model: The model folder.
            iterations_done: Optimizer steps of the last checkpoint.
        """
        self._writer: Any = None
        if find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(model / FOLDER), purge_step=iterations_done + 1)

    def write(self, metrics: Mapping[str, JsonValue]) -> None:
        """Write the metrics of an epoch at its last step.

        Args:
            metrics: A line of `metrics.jsonl`.
        """
        if self._writer is None:
            return
        step = metrics["iterations"]
        for name, value in _numbers(metrics, ""):
            if name not in ("epoch", "iterations"):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def _numbers(values: Mapping[str, JsonValue], prefix: str) -> Iterator[tuple[str, float]]:
    """Yield every number with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
