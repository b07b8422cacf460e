"""The next batches are made while the device works on these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scanseg.batches import Batch


@dataclass(frozen=True)
class _Group:
    """Batches that were made together."""

    number: int
    waiting: dict[int, Batch]
    """Those that were not taken yet, by their iteration."""
    made: torch.cuda.Event | None
    """Comes when the device has made them; None: they are there."""


class BatchPrefetcher:
    """Makes each batch once, in groups of successive iterations, a group ahead of its use.

    Which iterations are a group does not depend on where a training begins, so that a resumed one is given what it
    would have been given. On a GPU a group is made on a stream of its own: the copies of its few numbers from the host
    then wait for the making alone, not for the training steps that run meanwhile; and it is queued while steps on
    nearly all batches of the group before are still to come.
    """

    def __init__(
        self, make: Callable[[Sequence[int]], Sequence[Batch]], *, device: torch.device, at_once: int = 1
    ) -> None:
        """Prepare nothing yet.

        Args:
            make: Makes the batches of some iterations.
            device: Where batches are made.
            at_once: Batches of a group.
        """
        self._make = make
        self._at_once = at_once
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            # What batches are made of may still be being written.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._current: _Group | None = None
        self._next: _Group | None = None

    def take(self, iteration: int) -> Batch:
        """Return the batch of an iteration, made now if it is not ready; each can be taken once."""
        number = iteration // self._at_once
        if self._current is None or iteration not in self._current.waiting:
            ready = self._next if self._next is not None and self._next.number == number else None
            self._current, self._next = ready or self._make_group(number), None
        batch = self._current.waiting.pop(iteration)
        if self._current.made is not None:
            current = torch.cuda.current_stream()
            # Of this group alone: the stream may already be making the next one.
            current.wait_event(self._current.made)
            for tensor in (batch.images, batch.label_maps):
                tensor.record_stream(
                    current
                )  # of the whole group's memory, which lasts until the last is used
        return batch

    def prepare(self) -> None:
        """Make the group after that of the batch taken last, so that it is ready when its first one is taken."""
        number = 0 if self._current is None else self._current.number + 1
        if self._next is None or self._next.number != number:
            self._next = self._make_group(number)

    def _make_group(self, number: int) -> _Group:
        """Make a group of batches, on the stream for it."""
        iterations = range(number * self._at_once, (number + 1) * self._at_once)
        if self._stream is None:
            return _Group(number, dict(zip(iterations, self._make(iterations), strict=True)), None)
        with torch.cuda.stream(self._stream):
            batches = dict(zip(iterations, self._make(iterations), strict=True))
            made = torch.cuda.Event()
            made.record(self._stream)
        return _Group(number, batches, made)
