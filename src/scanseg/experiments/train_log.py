"""The log of a training: notes, warnings, errors, scores, and progress lines, with times."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from scanseg.errors import ScansegError
from scanseg.messages import counted, format_duration
from scanseg.models import ModelFolder
from scanseg.progress import ProgressUpdate
from scanseg.progress_display import PrintedNotes, ProgressLines
from scanseg.runtime import RunContext
from scanseg.training import TrainingResult, command_words


@contextmanager
def write_log(folder: ModelFolder, context: RunContext, *, warnings: tuple[str, ...]) -> Iterator[RunContext]:
    """Write the log of a training, `train.log` in its model folder.

    Resumed trainings append to it. Only the main process writes. A terminal shows bars instead of lines, so the log has
    progress lines of its own, at other moments than the console.

    Args:
        folder: The model folder.
        context: Progress callback and distributed processes.
        warnings: Warnings of the preparation.

    Yields:
        The context for the training.
    """
    if not context.distributed.is_main_process:
        yield context
        return
    with folder.log_path.open("a", encoding="utf-8") as file:
        stream = _Timed(file)
        shown = PrintedNotes(ProgressLines(stream), stream)
        stream.write(f"{shlex.join(command_words(sys.argv))}\n")
        shown.print_new(warnings)

        def report(update: ProgressUpdate) -> None:
            shown(update)
            context.progress(update)

        try:
            yield context.with_progress(report)
        except ScansegError as error:
            stream.write(f"error: {error}\n")
            raise


def log_result(folder: ModelFolder, result: TrainingResult) -> None:
    """Append the scores of a finished training to its log.

    Args:
        folder: The model folder.
        result: The result.
    """
    scores = [*result.scores.items(), ("mean", result.mean_dice)] if result.scores else []
    parts = [f"{label} {'-' if dice is None else f'{dice:.4f}'}" for label, dice in scores]
    with folder.log_path.open("a", encoding="utf-8") as file:
        if parts:
            _Timed(file).write(f"validation Dice: {', '.join(parts)}\n")
        epochs = counted(result.epochs_done, "epoch")
        _Timed(file).write(f"finished: {epochs} in {format_duration(result.seconds)}\n")


class _Timed:
    """Text stream with a time (ISO 8601, UTC) before each line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        """Write a line."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self._stream.write(f"{now}  {line}")

    def flush(self) -> None:
        """Write buffered lines to the file."""
        self._stream.flush()
