"""The metrics of a training in a file of JSON lines."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from scanseg.documents import parse_json
from scanseg.files import write_text
from scanseg.messages import counted

_MOST_EPOCHS = 10**12
_WITHIN_EPOCH = "epochs_done"
"""Key of lines with losses within an epoch."""


@dataclass(frozen=True)
class MetricsLog:
    """Metrics of a training, one JSON object per line.

    Lines of losses within an epoch have the key `epochs_done`, a number with a fraction.
    """

    path: Path

    def append(self, metrics: Mapping[str, JsonValue]) -> None:
        """Add a line.

        Args:
            metrics: Epoch, loss and further measures.
        """
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(metrics) + "\n")

    def read(self) -> list[dict[str, JsonValue]]:
        """Read the metrics of each epoch.

        A last line that a crash cut short is left out, and so are damaged lines.
        """
        return [line for line in self.read_all() if _WITHIN_EPOCH not in line]

    def read_all(self) -> list[dict[str, JsonValue]]:
        """Read all lines in the order of the training."""
        return [line for line in self._lines() if line is not None]

    def keep(self, epochs_done: int, *, iterations_done: int) -> str | None:
        """Drop damaged lines, and metrics of steps to train again.

        Args:
            epochs_done: Number of epochs to keep.
            iterations_done: Number of steps to keep.

        Returns:
            A warning about damaged lines. `None`: no line is damaged.
        """
        lines = self._lines()
        found = [line for line in lines if line is not None]
        kept = {}
        for line in found:
            if _WITHIN_EPOCH in line:
                is_kept = line.get("iterations", 0) <= iterations_done  # type: ignore[operator]
            else:
                is_kept = line["epoch"] <= epochs_done  # type: ignore[operator]
            if is_kept:
                kept[line.get(_WITHIN_EPOCH, line["epoch"]), _WITHIN_EPOCH in line] = line
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept.values()))
        if len(found) == len(lines):
            return None
        damaged = counted(len(lines) - len(found), "damaged line")
        return f"{self.path}: {damaged} left out, so the curves lack these epochs"

    def _lines(self) -> list[dict[str, JsonValue] | None]:
        """Read the lines.

        A last line that a crash cut short is left out.

        Returns:
            The metrics of each line. `None`: the line is damaged.
        """
        try:
            content = self.path.read_bytes() if self.path.is_file() else b""
        except OSError:
            return [None]
        *lines, _ = content.split(b"\n")
        return [_parse(line) for line in lines]


def _parse(line: bytes) -> dict[str, JsonValue] | None:
    """Parse a line. `None`: it is damaged."""
    try:
        metrics = parse_json(line.decode())
    except ValueError:
        return None
    if not isinstance(metrics, dict):
        return None
    epoch, dice = metrics.get("epoch"), metrics.get("validation_dice", {})
    has_dice = isinstance(dice, dict) and all(value is None or _is_number(value) for value in dice.values())
    is_epoch = isinstance(epoch, int) and not isinstance(epoch, bool) and 0 < epoch < _MOST_EPOCHS
    numbers = [
        metrics[name] for name in ("loss", "seconds", "lr", "iterations", _WITHIN_EPOCH) if name in metrics
    ]
    return metrics if is_epoch and has_dice and all(map(_is_number, numbers)) else None


def _is_number(value: object) -> bool:
    """Return whether a JSON value fits into a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max
