"""The next batch is made while the device works on this one."""

from collections.abc import Callable

import torch

from scanseg.data.batches import Batch


class BatchesAhead:
    """Makes each batch once, one ahead of its use.

    On a GPU the batch is made on a stream of its own: the copies of its few numbers from the host then wait for
    the making alone, not for the training step that runs meanwhile.
    """

    def __init__(self, make: Callable[[int], Batch], *, device: torch.device) -> None:
        """Prepare nothing yet.

        Args:
            make: Makes the batch of an iteration.
            device: Where batches are made.
        """
        self._make = make
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            # What batches are made of may still be being written.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._ready: tuple[int, Batch] | None = None

    def take(self, iteration: int) -> Batch:
        """Return the batch of an iteration, made now if it is not ready."""
        self.prepare(iteration)
        assert self._ready is not None
        batch, self._ready = self._ready[1], None
        if self._stream is not None:
            current = torch.cuda.current_stream()
            current.wait_stream(self._stream)
            for tensor in (batch.images, batch.label_maps):
                tensor.record_stream(current)
        return batch

    def prepare(self, iteration: int) -> None:
        """Make the batch of an iteration, so that it is ready when it is taken."""
        if self._ready is not None and self._ready[0] == iteration:
            return
        if self._stream is None:
            self._ready = (iteration, self._make(iteration))
            return
        with torch.cuda.stream(self._stream):
            self._ready = (iteration, self._make(iteration))
