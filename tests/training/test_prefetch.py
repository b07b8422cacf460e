"""Batches made ahead are the batches that were asked for, each made once."""

import signal

import pytest
import torch
from safetensors.torch import load_file

import scanseg
from scanseg.batches.batches import Batch
from scanseg.errors import InterruptionError
from scanseg.training import loop as run_module
from scanseg.training.prefetch import BatchPrefetcher

from .conftest import SETTINGS

CPU = torch.device("cpu")


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    def make(iterations):
        made.append(list(iterations))
        return [f"batch {iteration}" for iteration in iterations]

    return make


def test_each_batch_is_made_once_and_given_for_its_iteration(make, made):
    ahead = BatchPrefetcher(make, device=CPU)

    assert ahead.take(3) == "batch 3"
    ahead.prepare()
    ahead.prepare()
    assert ahead.take(4) == "batch 4"
    assert ahead.take(7) == "batch 7"
    assert made == [[3], [4], [7]]


def test_the_next_group_is_made_while_the_batches_of_one_are_taken(make, made):
    ahead = BatchPrefetcher(make, device=CPU, at_once=3)

    taken = []
    for iteration in range(7):
        taken.append(ahead.take(iteration))
        ahead.prepare()
        assert len(made) == iteration // 3 + 2

    assert taken == [f"batch {iteration}" for iteration in range(7)]
    assert made == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_a_group_is_the_same_wherever_a_training_begins(make, made):
    ahead = BatchPrefetcher(make, device=CPU, at_once=4)

    assert [ahead.take(iteration) for iteration in (6, 7, 8)] == ["batch 6", "batch 7", "batch 8"]
    assert made == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_batch_that_is_asked_for_again_is_made_again(make, made):
    ahead = BatchPrefetcher(make, device=CPU, at_once=2)

    assert [ahead.take(iteration) for iteration in (0, 1, 0)] == ["batch 0", "batch 1", "batch 0"]
    assert made == [[0, 1], [0, 1]]


def signal_at_step(number):
    """A listener that has SIGINT sent when a number of steps are done; one more is taken."""
    steps = []

    def progress(progress):
        if progress.task == "training":
            steps.append(progress)
            if len(steps) == number:
                signal.raise_signal(signal.SIGINT)

    return progress


def test_a_training_does_not_depend_on_how_many_batches_are_made_at_once(dataset, tmp_path, monkeypatch):
    """Nor does one that was stopped in the midst of a group."""
    settings = [each for each in SETTINGS if each != "augmentation=[]"] + ["training.iterations_per_epoch=4"]
    made = scanseg.make_plan(dataset, settings=settings, num_workers=0)
    plan = tmp_path / "plan.json"
    plan.write_text(made.to_json())

    def weights(name, at_once, *, stop_at=None):
        monkeypatch.setattr(run_module, "num_batches_at_once", lambda *_, **__: at_once)
        options = {"device": "cpu", "num_workers": 0}
        if stop_at is not None:
            with pytest.raises(InterruptionError, match=f"stopped after {stop_at} iterations"):
                scanseg.train(plan, tmp_path / name, progress=signal_at_step(stop_at - 1), **options)
            options["resume"] = True
        scanseg.train(plan, tmp_path / name, **options)
        return load_file(tmp_path / name / "model.safetensors")

    assert made.augmentation
    expected = weights("one by one", 1)
    for found in (weights("together", 3), weights("stopped", 3, stop_at=5)):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.gpu
def test_cases_that_are_still_being_written_are_waited_for():
    device = torch.device("cuda")
    images, label_maps = (torch.zeros(1 << 20, device=device) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(200_000_000)
    images.fill_(1)
    label_maps.fill_(1)

    batch = BatchPrefetcher(lambda _: [Batch(images.clone(), label_maps.clone())], device=device).take(0)

    assert batch.images.min() == batch.label_maps.min() == 1


def groups_of_numbers(iterations, *, delay):
    """Batches that hold the number of their iteration; views of one tensor, made after a while."""
    numbers = torch.tensor(list(iterations), device="cuda").float()  # waits for what runs: before the delay
    torch.cuda._sleep(delay)
    images = numbers.repeat_interleave(1 << 20)
    images, label_maps = (each.view(len(iterations), -1) for each in (images, images + 0.5))
    return [Batch(*each) for each in zip(images, label_maps, strict=True)]


@pytest.mark.gpu
def test_the_rest_of_a_group_does_not_wait_for_the_next_one():
    device, delays = torch.device("cuda"), iter([0, 8_000_000_000])
    ahead = BatchPrefetcher(
        lambda iterations: groups_of_numbers(iterations, delay=next(delays)), device=device, at_once=2
    )

    # What follows is loaded here, since loading waits for all that runs.
    assert ahead.take(0).images.unique().tolist() == [0]
    torch.cuda.synchronize()
    ahead.prepare()
    batch = ahead.take(1)
    assert batch.images.unique().tolist() == [1]
    assert not ahead._next.made.query()


@pytest.mark.gpu
def test_batches_keep_their_values_while_later_groups_are_made():
    device, sums = torch.device("cuda"), []
    ahead = BatchPrefetcher(
        lambda iterations: groups_of_numbers(iterations, delay=0), device=device, at_once=3
    )

    for iteration in range(20):
        batch = ahead.take(iteration)
        torch.cuda._sleep(20_000_000)  # the host runs ahead of the steps
        sums.append(torch.stack([batch.images.mean(), batch.label_maps.mean()]))
        del batch
        ahead.prepare()

    assert torch.stack(sums).tolist() == [[number, number + 0.5] for number in range(20)]
