"""Prepare batches while the device trains on earlier ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scanseg.batches import Batch


@dataclass(frozen=True)
class _Group:
    """Batches that are made together."""

    number: int
    batches: dict[int, Batch]
    """Batches that were not taken yet, by iteration."""
    made: torch.cuda.Event | None
    """CUDA event after the last batch is made. `None`: all exist already."""


class BatchPrefetcher:
    """Make each batch once, in groups of successive iterations, one group ahead.

    The groups do not depend on the first iteration, so a resumed training gets the same batches. On a GPU a group is
    made on its own stream. Copies of its few numbers from the host then wait for this stream only, not for the
    training steps that run meanwhile. A group is queued while nearly all batches of the previous group are still to
    be used.
    """

    def __init__(
        self, make: Callable[[Sequence[int]], Sequence[Batch]], *, device: torch.device, at_once: int = 1
    ) -> None:
        """Create the stream. No batch is made yet.

        Args:
            make: Function that makes the batches of some iterations.
            device: Device of the batches.
            at_once: Number of batches per group.
        """
        self._make = make
        self._at_once = at_once
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            # The cases may still be on their way to the device.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._current: _Group | None = None
        self._next: _Group | None = None

    def take(self, iteration: int) -> Batch:
        """Return the batch of an iteration, which can be taken once.

        Args:
            iteration: Number of the iteration. Its group is made now if it is not ready.
        """
        number = iteration // self._at_once
        if self._current is None or iteration not in self._current.batches:
            ready = self._next if self._next is not None and self._next.number == number else None
            self._current, self._next = ready or self._make_group(number), None
        batch = self._current.batches.pop(iteration)
        if self._current.made is not None:
            current = torch.cuda.current_stream()
            # Wait for this group only, because the stream may already make the next one.
            current.wait_event(self._current.made)
            # This keeps the memory of the whole group until its last batch is used.
            for tensor in (batch.images, batch.label_maps):
                tensor.record_stream(current)
        return batch

    def prepare(self) -> None:
        """Make the next group of batches, if it is missing."""
        number = 0 if self._current is None else self._current.number + 1
        if self._next is None or self._next.number != number:
            self._next = self._make_group(number)

    def _make_group(self, number: int) -> _Group:
        """Make a group of batches on the own stream."""
        iterations = range(number * self._at_once, (number + 1) * self._at_once)
        if self._stream is None:
            return _Group(number, dict(zip(iterations, self._make(iterations), strict=True)), None)
        with torch.cuda.stream(self._stream):
            batches = dict(zip(iterations, self._make(iterations), strict=True))
            made = torch.cuda.Event()
            made.record(self._stream)
        return _Group(number, batches, made)
