"""Parts of a batch that are made apart, by several processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShard:
    """One of the equal parts of a batch."""

    index: int = 0
    """Number of the part."""
    count: int = 1
    """Number of all parts."""

    def of(self, batch_size: int) -> slice:
        """Return which patches of a batch are in this part; the batch size is divisible by the number of parts."""
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


WHOLE_BATCH = BatchShard()
