"""Batches made ahead are the batches that were asked for, each made once."""

import torch

from scanseg.training.ahead import BatchesAhead


def test_each_batch_is_made_once_and_given_for_its_iteration():
    made = []

    def make(iteration):
        made.append(iteration)
        return f"batch {iteration}"

    ahead = BatchesAhead(make, device=torch.device("cpu"))

    assert ahead.take(3) == "batch 3"
    ahead.prepare(4)
    ahead.prepare(4)
    assert ahead.take(4) == "batch 4"
    assert ahead.take(7) == "batch 7"
    assert made == [3, 4, 7]
