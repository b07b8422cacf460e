"""Batches made ahead are the batches that were asked for, each made once."""

import pytest
import torch

from scanseg.data.batches import Batch
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


@pytest.mark.gpu
def test_cases_that_are_still_being_written_are_waited_for():
    device = torch.device("cuda")
    images, label_maps = (torch.zeros(1 << 20, device=device) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(200_000_000)
    images.fill_(1)
    label_maps.fill_(1)

    batch = BatchesAhead(lambda _: Batch(images.clone(), label_maps.clone()), device=device).take(0)

    assert batch.images.min() == batch.label_maps.min() == 1
