"""Batches made together equal single ones and need fewer launches."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scanseg.batches import batches as batches_module
from scanseg.batches.batches import make_batch, make_batches, num_batches_at_once
from scanseg.batches.cascade import PredictedLabels
from scanseg.batches.in_memory import InMemoryCases
from scanseg.batches.on_disk import open_cases
from scanseg.batches.shard import BatchShard
from scanseg.planning.augmentations import nnunet_augmentation, slice_augmentation
from scanseg.runtime import RunContext
from scanseg.specs import AffineTransform, CascadeSpec, SamplingSpec
from tests.factories import write_store

CPU = torch.device("cpu")
SHAPES = ((30, 31, 29), (12, 40, 20), (22, 25, 33))
REGIONS = {"whole": (1, 2), "core": (2,)}


def load_cases(*, num_channels, packed=False, device=CPU, shapes=SHAPES):
    """Return cases of noise. The labels `whole` and `core` overlap."""
    rng = np.random.default_rng(0)
    label_maps = [rng.integers(0, 3, shape) for shape in shapes]
    voxels = np.concatenate([each.ravel() for each in label_maps])
    if packed:
        voxels = (voxels + 256 * rng.integers(0, 3, voxels.shape)).astype(np.int16)
    image = rng.normal(size=(num_channels, len(voxels))).astype(np.float16)
    return InMemoryCases(
        names=tuple(str(number) for number in range(len(shapes))),
        images=torch.from_numpy(image).to(device),
        label_maps=torch.from_numpy(voxels if packed else voxels.astype(np.uint8)).to(device),
        shapes_host=np.array(shapes),
        background_value=torch.full((num_channels,), -1.0, device=device),
        locations=tuple(
            {name: np.flatnonzero(np.isin(each, values)) for name, values in REGIONS.items()}
            for each in label_maps
        ),
        annotated=None,
    )


def with_high_probability(transforms, **affine):
    """Return the transforms with probabilities of about one half."""

    def change(spec):
        if isinstance(spec, AffineTransform):
            return spec.model_copy(update={"rotation_probability": 0.5, "scale_probability": 0.5, **affine})
        fields = {"probability": 0.5, "channel_probability": 0.6}
        return spec.model_copy(update={name: fields[name] for name in fields if hasattr(spec, name)})

    return tuple(change(spec) for spec in transforms)


BOX, FLAT_BOX, PLANE = (10, 12, 9), (4, 20, 18), (16, 13)
IN_3D, FLAT = (
    nnunet_augmentation(BOX, mirror_axes=(0, 1, 2)),
    nnunet_augmentation(FLAT_BOX, mirror_axes=(1, 2)),
)
IN_2D, SLICES = nnunet_augmentation(PLANE, mirror_axes=(0, 1)), slice_augmentation(mirror_axes=(0, 1))
ELASTIC = {"elastic_probability": 0.6}
CASCADE = PredictedLabels((1, 2), CascadeSpec())
EVERY_SLICE = {"order": "every-slice"}
# Number of channels, patch size, transforms, further sampling settings, arguments of make_batch.
CONFIGURATIONS = {
    "3d": (1, BOX, IN_3D, {}, {}),
    "3d, channels": (3, BOX, with_high_probability(IN_3D), {"label_weights": {"core": 2.0}}, {}),
    "3d, a part": (2, BOX, with_high_probability(IN_3D), {}, {"shard": BatchShard(1, 3)}),
    "3d, elastic": (2, BOX, with_high_probability(IN_3D, **ELASTIC), {}, {}),
    "flat, elastic": (2, FLAT_BOX, with_high_probability(FLAT, **ELASTIC), {}, {}),
    "flat, beyond the case": (1, (16, 20, 18), with_high_probability(FLAT), {}, {}),
    "2d": (1, PLANE, IN_2D, {}, {}),
    "2d, channels": (3, PLANE, with_high_probability(IN_2D), {}, {}),
    "slices": (1, PLANE, SLICES, EVERY_SLICE, {}),
    "slices, channels, a part": (
        3,
        PLANE,
        with_high_probability(SLICES),
        EVERY_SLICE,
        {"shard": BatchShard(0, 2)},
    ),
    "cascade": (1, BOX, with_high_probability(IN_3D), {}, {"predicted": CASCADE}),
    "cascade, a part": (
        1,
        BOX,
        with_high_probability(IN_3D),
        {},
        {"predicted": CASCADE, "shard": BatchShard(1, 2)},
    ),
    "without augmentation": (2, BOX, (), {}, {"predicted": None}),
}


def makers(name, *, device=CPU):
    """Return `make_batch` and `make_batches` with all arguments except the iterations."""
    num_channels, patch_size, transforms, settings, options = CONFIGURATIONS[name]
    cases = load_cases(num_channels=num_channels, packed=bool(options.get("predicted")), device=device)
    sampling = SamplingSpec(patch_size=patch_size, batch_size=6, **settings)
    fixed = {"transforms": transforms, "seed": 5, "stream": 0, "device": device, **options}
    return partial(make_batch, cases, sampling, **fixed), partial(make_batches, cases, sampling, **fixed)


def assert_equal_batches(batch, other, *, exactly=True):
    assert torch.equal(batch.label_maps, other.label_maps)
    assert batch.images.is_contiguous()
    assert batch.label_maps.is_contiguous()
    if exactly:
        assert torch.equal(batch.images, other.images)
    else:
        torch.testing.assert_close(batch.images, other.images)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_batches_made_together_equal_single_ones(name):
    one, several = makers(name)
    expected = [one(iteration=iteration) for iteration in range(9)]

    for iterations in ([0, 1, 2], [3, 4, 5], [6, 7, 8], range(8), [5], [7, 2]):
        made = several(iterations=iterations)
        assert len(made) == len(iterations)
        for iteration, batch in zip(iterations, made, strict=True):
            assert_equal_batches(batch, expected[iteration])


@pytest.mark.parametrize("name", ["3d, elastic", "flat, elastic", "slices"])
def test_boxes_from_host_memory_give_equal_batches(name, monkeypatch):
    one, several = makers(name)
    expected = [one(iteration=iteration) for iteration in range(4)]
    monkeypatch.setattr(batches_module, "_is_on_another_device", lambda cases, device: True)

    for batch, other in zip(several(iterations=range(4)), expected, strict=True):
        assert_equal_batches(batch, other)


def test_cases_on_disk_give_the_same_batches(make_dataset, tmp_path):
    dataset = make_dataset(4, num_channels=2, shape=(11, 20, 18))
    store = write_store(dataset, tmp_path / "store")
    names = [case.case for case in store.index.cases]
    sampling = SamplingSpec(patch_size=BOX, batch_size=4)
    fixed = {"transforms": with_high_probability(IN_3D), "seed": 5, "stream": 0, "device": CPU}
    cases = open_cases(store, names, context=RunContext(device="cpu", num_workers=0), seed=3)

    made = make_batches(cases, sampling, iterations=range(2, 5), **fixed)

    for iteration, batch in zip(range(2, 5), made, strict=True):
        assert_equal_batches(batch, make_batch(cases, sampling, iteration=iteration, **fixed))


@pytest.mark.gpu
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_on_a_gpu_batches_agree_up_to_rounding(name):
    one, several = makers(name, device=torch.device("cuda"))

    for iteration, batch in enumerate(several(iterations=range(6))):
        assert_equal_batches(batch, one(iteration=iteration), exactly=False)


class Operations(TorchDispatchMode):
    """Counts operations that would be launched on a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and "empty" not in str(function):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def operations_per_batch(at_once, *, transforms, sampling, cases):
    numbers = {"seed": 0, "stream": 0, "device": CPU, "transforms": transforms}
    with Operations() as operations:
        for begin in range(0, 24, at_once):
            make_batches(cases, sampling, iterations=range(begin, begin + at_once), **numbers)
    return operations.counts.total() / 24


def test_batches_made_together_share_their_launches():
    given = {
        "transforms": nnunet_augmentation((20, 28, 20), mirror_axes=(0, 1, 2)),
        "sampling": SamplingSpec(patch_size=(20, 28, 20), batch_size=7),
        "cases": load_cases(num_channels=1, shapes=((36, 50, 35),) * 5),
    }

    single, joint = (operations_per_batch(at_once, **given) for at_once in (1, 4))

    # Measured: 132 and 47. The others are changes of resolution, one row at a time.
    assert single < 145
    assert joint < 55


@pytest.mark.parametrize(
    ("patch_size", "batch_size", "num_channels", "count", "expected"),
    [
        ((40, 56, 40), 7, 1, 1, 6),
        ((40, 56, 40), 8, 1, 2, 8),
        ((128, 128, 128), 2, 1, 1, 1),
        ((40, 56, 40), 7, 4, 1, 1),
        ((224, 224), 24, 1, 1, 3),
        ((8, 8, 8), 2, 1, 1, 8),
    ],
)
def test_number_of_batches_made_together_depends_on_memory(
    patch_size, batch_size, num_channels, count, expected
):
    cases = load_cases(num_channels=num_channels)
    sampling = SamplingSpec(patch_size=patch_size, batch_size=batch_size)

    shard = BatchShard(0, count)
    assert num_batches_at_once(cases, sampling, device=torch.device("cuda"), shard=shard) == expected
    assert num_batches_at_once(cases, sampling, device=CPU, shard=shard) == 1
