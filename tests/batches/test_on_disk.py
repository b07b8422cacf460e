"""Patches read from the store, compared with cases in memory, and errors of workers."""

import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from scanseg.batches import batches as batches_module
from scanseg.batches import box_reading
from scanseg.batches import on_disk as disk_module
from scanseg.batches.batches import make_batch
from scanseg.batches.in_memory import load_into_memory
from scanseg.batches.on_disk import open_cases
from scanseg.batches.shard import BatchShard
from scanseg.errors import InputError, ScansegError
from scanseg.runtime import RunContext, map_cases
from scanseg.runtime.workers import WorkerEndedError, WorkerPool
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    MirrorTransform,
    SamplingSpec,
)
from tests.factories import write_store

CPU = torch.device("cpu")
TRANSFORMS = (
    AffineTransform(
        rotation_probability=0.5,
        scale_probability=0.5,
        translation_probability=0.5,
        translation_range=(-1, 1),
        elastic_probability=0.5,
        elastic_scale_range=(0, 0.2),
        elastic_magnitude_range=(0, 5),
    ),
    GaussianNoiseTransform(probability=0.5),
    GaussianBlurTransform(probability=0.5),
    BrightnessTransform(probability=0.5),
    MirrorTransform(axes=(0, 1)),
)
SAMPLINGS = {
    "3d": SamplingSpec(patch_size=(4, 8, 6), batch_size=6),
    "larger than the case": SamplingSpec(patch_size=(9, 16, 8), batch_size=6),
    "slices": SamplingSpec(patch_size=(8, 6), batch_size=6),
}
IN_PLANE = {"3d": False, "larger than the case": True, "slices": True}


@pytest.fixture
def store(make_dataset, tmp_path):
    dataset = make_dataset(4, num_channels=2, shape=(7, 20, 18))
    return write_store(dataset, tmp_path / "store")


@pytest.fixture
def names(store):
    return [case.case for case in store.index.cases]


@pytest.fixture
def located_here(monkeypatch):
    """Locate labels in this process, so that the only worker is the one that reads patches."""

    def locate(function, files, *, context, task):
        return map_cases(function, files, context=replace(context, num_workers=0), task=task)

    monkeypatch.setattr(disk_module, "map_cases", locate)


def batch_of(cases, sampling, *, iteration=0, transforms=TRANSFORMS, shard=None, following=None):
    options = {"following": following} if shard is None else {"shard": shard}
    numbers = {"seed": 3, "stream": 0, "iteration": iteration}
    return make_batch(cases, sampling, transforms=transforms, device=CPU, **numbers, **options)


@pytest.mark.parametrize(("kind", "num_workers"), [(kind, 0) for kind in SAMPLINGS] + [("3d", 2)], ids=str)
def test_patches_equal_those_of_cases_in_memory(store, names, kind, num_workers):
    in_memory = load_into_memory(store, names, context=RunContext(device="cpu"), seed=3)
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=num_workers), seed=3)
    affine = TRANSFORMS[0].model_copy(update={"in_plane": IN_PLANE[kind]})
    transforms = (affine, *TRANSFORMS[1:])

    for iteration in (0, 1, 2, 7, 0):
        ours = batch_of(on_disk, SAMPLINGS[kind], iteration=iteration, transforms=transforms)
        theirs = batch_of(in_memory, SAMPLINGS[kind], iteration=iteration, transforms=transforms)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.label_maps, theirs.label_maps)
    on_disk.close()


@pytest.mark.parametrize("kind", SAMPLINGS)
def test_patches_of_cases_in_host_memory_equal_those_of_cases_on_the_device(store, names, kind, monkeypatch):
    """If the host holds the cases, their boxes are copied to the GPU and warped on it."""
    in_memory = load_into_memory(store, names, context=RunContext(device="cpu"), seed=3)
    theirs = [batch_of(in_memory, SAMPLINGS[kind], iteration=iteration) for iteration in range(4)]
    monkeypatch.setattr(batches_module, "_is_on_another_device", lambda cases, device: True)

    ours = [batch_of(in_memory, SAMPLINGS[kind], iteration=iteration) for iteration in range(4)]

    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.label_maps, other.label_maps)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_patches_for_a_gpu_of_cases_in_host_memory(store, names, kind):
    cuda = torch.device("cuda")
    on_host, on_gpu = (
        load_into_memory(store, names, context=RunContext(device=device), seed=3) for device in (CPU, cuda)
    )

    for iteration in range(5):
        numbers = {"seed": 3, "stream": 0, "iteration": iteration}
        ours, theirs = (
            make_batch(cases, SAMPLINGS[kind], transforms=TRANSFORMS, device=cuda, **numbers)
            for cases in (on_host, on_gpu)
        )
        torch.testing.assert_close(ours.images, theirs.images)
        assert torch.equal(ours.label_maps, theirs.label_maps)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_patches_for_a_gpu_of_cases_on_disk(store, names, kind):
    cuda = torch.device("cuda")
    in_memory = load_into_memory(store, names, context=RunContext(device=cuda), seed=3)
    on_disk = open_cases(store, names, context=RunContext(device=cuda, num_workers=2), seed=3)

    for iteration in range(5):
        numbers = {"seed": 3, "stream": 0, "iteration": iteration}
        ours, theirs = (
            make_batch(cases, SAMPLINGS[kind], transforms=TRANSFORMS, device=cuda, **numbers)
            for cases in (on_disk, in_memory)
        )
        torch.testing.assert_close(ours.images, theirs.images)
        assert torch.equal(ours.label_maps, theirs.label_maps)
    on_disk.close()


@pytest.mark.parametrize("kind", SAMPLINGS)
def test_shards_equal_parts_of_the_whole_batch(store, names, kind):
    in_memory = load_into_memory(store, names, context=RunContext(device="cpu"), seed=3)

    for iteration in range(10):
        whole = batch_of(in_memory, SAMPLINGS[kind], iteration=iteration)
        parts = [
            batch_of(in_memory, SAMPLINGS[kind], iteration=iteration, shard=BatchShard(n, 3))
            for n in range(3)
        ]
        assert torch.equal(torch.cat([part.label_maps for part in parts]), whole.label_maps)
        torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)


def test_only_the_boxes_of_a_batch_are_read(store, names, monkeypatch):
    read = []
    monkeypatch.setattr(box_reading, "open_array", lambda path, **options: Spy(path, read))
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=0), seed=3)
    read.clear()

    batch_of(on_disk, SamplingSpec(patch_size=(3, 4, 5), batch_size=2), transforms=())

    assert sorted(read) == [(2, 3, 4, 5), (2, 3, 4, 5), (3, 4, 5), (3, 4, 5)]


class Spy:
    """Array that records the shapes of its reads."""

    def __init__(self, path, read):
        from scanseg.preprocessing.compressed import open_array

        self._array, self._read = open_array(path), read

    def __getitem__(self, box):
        part = self._array[box]
        self._read.append(part.shape)
        return part


@pytest.mark.usefixtures("located_here")
def test_few_batches_are_requested_ahead(store, names):
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=1), seed=3)

    for iteration in (0, 1, 100, 5):
        batch_of(on_disk, SAMPLINGS["3d"], iteration=iteration)
        waiting = list(on_disk._waiting)
        assert waiting == list(range(iteration + 1, iteration + 3))
    on_disk.close()


@pytest.mark.usefixtures("located_here")
def test_batches_of_other_processes_are_not_read(store, names):
    """The second of three processes reads batches 1, 4 and 7 of eight, and then batch 1 again."""
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=1), seed=3)
    shared = range(1, 8, 3)

    for place, (iteration, waiting) in enumerate(((1, [4, 7]), (4, [7, 1]), (7, [1, 4]))):
        following = (*shared[place + 1 :], *shared[:place])
        ours = batch_of(on_disk, SAMPLINGS["3d"], iteration=iteration, following=following)
        theirs = batch_of(
            load_into_memory(store, names, context=RunContext(device="cpu"), seed=3),
            SAMPLINGS["3d"],
            iteration=iteration,
        )
        assert torch.equal(ours.images, theirs.images)
        assert list(on_disk._waiting) == waiting
    on_disk.close()


def test_a_worker_that_is_killed_while_it_sends_is_reported():
    """`take` does not wait for the rest of a partly sent result."""
    pool = WorkerPool(1)
    ticket = pool.submit(np.zeros, 10_000_000)
    pool._workers[0][1].poll(60)
    pool.processes[0].kill()

    with pytest.raises(WorkerEndedError):
        pool.take(ticket)
    pool.close()


@pytest.mark.timeout(60)
def test_tasks_and_results_larger_than_a_pipe_do_not_block_each_other():
    pool = WorkerPool(1)
    content = b"x" * 3_000_000

    tickets = [pool.submit(bytes, content) for _ in range(3)]

    assert [pool.take(ticket) for ticket in tickets] == [content] * 3
    pool.close()


def test_a_task_that_cannot_be_unpickled_ends_its_process():
    pool = WorkerPool(1)
    pool.take(pool.submit(bytes, b"started"))
    pool._workers[0][1].send_bytes(b"no pickle")

    with pytest.raises(WorkerEndedError):
        pool.take(pool.submit(bytes, b"lost"))
    pool.close()


def test_workers_ignore_sigterm():
    pool = WorkerPool(1)
    pool.take(pool.submit(bytes, b"started"))
    for process in pool.processes:
        os.kill(process.pid, signal.SIGTERM)

    assert pool.take(pool.submit(bytes, b"one more")) == b"one more"
    processes = pool.processes
    pool.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.usefixtures("located_here")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_array_is_named(store, names, num_workers):
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=num_workers), seed=3)
    for stored in store.index.cases:
        image, _ = store.array_files(stored)
        image.write_bytes(image.read_bytes()[:60])

    with pytest.raises(InputError, match=r"image\.b2nd: damaged"):
        batch_of(on_disk, SAMPLINGS["3d"])
    on_disk.close()


@pytest.mark.usefixtures("located_here")
def test_a_killed_worker_is_reported(store, names):
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=1), seed=3)
    batch_of(on_disk, SAMPLINGS["3d"])
    for process in on_disk._pool.processes:
        os.kill(process.pid, signal.SIGKILL)

    def continue_training():
        for iteration in range(1, 9):
            batch_of(on_disk, SAMPLINGS["3d"], iteration=iteration)

    with pytest.raises(ScansegError, match=r"ended from outside.*--num-workers"):
        continue_training()
    on_disk.close()


@pytest.mark.usefixtures("located_here")
def test_a_worker_without_memory_is_reported(store, names, monkeypatch):
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=1), seed=3)
    monkeypatch.setattr(disk_module, "read_boxes", partial(np.full, 10**15))

    with pytest.raises(ScansegError, match=r"not enough memory on the host.*PiB.*--num-workers"):
        batch_of(on_disk, SAMPLINGS["3d"])
    on_disk.close()


def test_locations_of_labels_equal_those_in_memory(store, names):
    in_memory = load_into_memory(store, names, context=RunContext(device="cpu"), seed=3)
    on_disk = open_cases(store, names, context=RunContext(device="cpu", num_workers=0), seed=3)

    for ours, theirs in zip(on_disk.locations, in_memory.locations, strict=True):
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)
    assert (np.asarray(on_disk.shapes_host) == in_memory.shapes_host).all()
