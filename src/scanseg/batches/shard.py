"""Shards: the parts of a batch that distributed processes compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShard:
    """One of the equal parts of a batch.

    Examples:
        >>> BatchShard(index=1, count=3).of(batch_size=6)
        slice(2, 4, None)
    """

    index: int = 0
    """Number of the shard, from 0."""
    count: int = 1
    """Number of all shards."""

    def of(self, batch_size: int) -> slice:
        """Return the patches of a batch that belong to this shard.

        Args:
            batch_size: Patches of the batch, divisible by the number of shards.
        """
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


WHOLE_BATCH = BatchShard()
"""The only shard of a batch."""
