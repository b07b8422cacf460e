"""Patches of batches: positions, contents, and equal results for equal seeds."""

import numpy as np
import pytest
import torch

from scanseg.batches.batches import make_batch
from scanseg.batches.in_memory import InMemoryCases
from scanseg.batches.sampling import (
    TRAINING_STREAM,
    VALIDATION_STREAM,
    draw_positions,
    iterations_per_pass,
)
from scanseg.specs import AffineTransform, MirrorTransform, SamplingSpec

CPU = torch.device("cpu")


def load_cases(*label_maps, background_value=0.0, ignored=None):
    """Return cases whose image is 10 times the label map plus the case's number, in two channels of opposite sign."""
    shapes = np.array([label_map.shape for label_map in label_maps])
    flat = [10.0 * label_map.ravel() + number for number, label_map in enumerate(label_maps)]
    image = torch.tensor(np.concatenate(flat), dtype=torch.float16)
    return InMemoryCases(
        names=tuple(f"case{n}" for n in range(len(label_maps))),
        images=torch.stack([image, -image]),
        label_maps=torch.tensor(np.concatenate([m.ravel() for m in label_maps]), dtype=torch.uint8),
        shapes_host=shapes,
        background_value=torch.tensor([background_value, background_value]),
        annotated=None if ignored is None else tuple(np.flatnonzero(m != ignored) for m in label_maps),
        locations=tuple({str(v): np.flatnonzero(m == v) for v in np.unique(m) if v} for m in label_maps),
    )


def numbered(*shape):
    return np.arange(np.prod(shape)).reshape(shape) % 200


def batch_of(cases, sampling, *, transforms=(), seed=0, stream=TRAINING_STREAM, iteration=0):
    return make_batch(
        cases,
        sampling,
        transforms=transforms,
        seed=seed,
        stream=stream,
        iteration=iteration,
        device=CPU,
    )


def test_gathered_patches_are_pieces_of_their_cases():
    first, second = numbered(5, 6, 7), numbered(4, 9, 8)
    cases = load_cases(first, second)

    images, label_maps = cases.gather(np.array([1, 0]), np.array([[1, 2, 3], [2, 0, 1]]), (2, 3, 4))

    assert (label_maps[0].numpy() == second[1:3, 2:5, 3:7]).all()
    assert (label_maps[1].numpy() == first[2:4, 0:3, 1:5]).all()
    assert (images[0, 0].numpy() == 10 * second[1:3, 2:5, 3:7] + 1).all()
    assert (images[1, 1].numpy() == -10.0 * first[2:4, 0:3, 1:5]).all()


@pytest.mark.parametrize("background_value", [0, -1])
def test_outside_a_case_are_background_value_and_background(background_value):
    label_map = np.full((2, 3, 3), 5)
    cases = load_cases(
        np.full((3, 3, 3), 7), label_map, np.full((3, 3, 3), 9), background_value=background_value
    )

    images, label_maps = cases.gather(np.array([1]), np.array([[-1, -1, -1]]), (4, 5, 5))

    expected = np.pad(label_map, 1)
    assert (label_maps[0].numpy() == expected).all()
    assert (images[0, 0].numpy() == np.where(expected, 51, background_value)).all()
    warped, _ = cases.interpolate(np.array([1]), torch.full((1, 3, 1, 1, 1), -3.5), in_plane=False)
    assert warped[0, :, 0, 0, 0].tolist() == [background_value, background_value]


def test_interpolation_at_voxels_and_halfway_between_them():
    label_map = numbered(4, 5, 6)
    cases = load_cases(label_map)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (3, 4, 5)), indexing="ij"))[None]

    same, labels = cases.interpolate(np.array([0]), grid.float(), in_plane=False)
    shifted, _ = cases.interpolate(
        np.array([0]), grid + torch.tensor([0.5, 0, 0]).view(1, 3, 1, 1, 1), in_plane=False
    )
    flat, _ = cases.interpolate(
        np.array([0]), grid + torch.tensor([0, 0, 0.25]).view(1, 3, 1, 1, 1), in_plane=True
    )

    assert (same[0, 0].numpy() == 10 * label_map[:3, :4, :5]).all()
    assert (labels[0].numpy() == label_map[:3, :4, :5]).all()
    assert shifted[0, 0].numpy() == pytest.approx(5 * (label_map[:3, :4, :5] + label_map[1:4, :4, :5]))
    assert flat[0, 0].numpy() == pytest.approx(7.5 * label_map[:3, :4, :5] + 2.5 * label_map[:3, :4, 1:6])


def test_equal_seeds_give_equal_batches_and_others_differ():
    cases = load_cases(numbered(20, 21, 22), numbered(18, 25, 19))
    sampling = SamplingSpec(patch_size=(8, 8, 8), batch_size=3)
    transforms = (AffineTransform(rotation_probability=1.0), MirrorTransform(axes=(0, 1, 2)))

    def images(**numbers):
        return batch_of(cases, sampling, transforms=transforms, **numbers).images

    assert torch.equal(images(iteration=5), images(iteration=5))
    for other in (
        {"iteration": 6},
        {"seed": 1, "iteration": 5},
        {"stream": VALIDATION_STREAM, "iteration": 5},
    ):
        assert not torch.equal(images(iteration=5), images(**other))


def test_a_third_of_the_patches_is_centred_on_foreground():
    label_map = np.zeros((40, 40, 40), dtype=int)
    label_map[20, 21, 22] = 1
    cases = load_cases(label_map)
    sampling = SamplingSpec(patch_size=(3, 3, 3), batch_size=9, foreground_fraction=0.33)

    hits = [(batch_of(cases, sampling, iteration=i).label_maps.flatten(1) == 1).any(1) for i in range(20)]

    assert all(hit[-3:].all() for hit in hits)
    assert sum(int(hit[:-3].sum()) for hit in hits) < 5
    assert batch_of(cases, sampling).label_maps[-1, 1, 1, 1] == 1


def test_labels_are_drawn_by_their_weights():
    label_map = np.zeros((20, 20, 20), dtype=int)
    label_map[3, 3, 3], label_map[10, 10, 10], label_map[16, 16, 16] = 1, 2, 3
    cases = load_cases(label_map)

    def shares(weights):
        sampling = SamplingSpec(
            patch_size=(3, 3, 3), batch_size=200, foreground_fraction=1, label_weights=weights
        )
        batch = batch_of(cases, sampling)
        return [int((batch.label_maps.flatten(1) == value).any(1).sum()) for value in (1, 2, 3)]

    assert shares({"2": 0}) == [pytest.approx(100, abs=30), 0, pytest.approx(100, abs=30)]
    assert shares({"1": 8}) == [
        pytest.approx(160, abs=25),
        pytest.approx(20, abs=20),
        pytest.approx(20, abs=20),
    ]
    assert shares({"1": 0, "2": 0}) == [0, 0, 200]


def test_patches_stay_inside_large_cases_and_are_centred_on_small_ones():
    cases = load_cases(numbered(4, 30, 30))
    sampling = SamplingSpec(patch_size=(8, 10, 10), batch_size=50)

    corners = draw_positions(cases, sampling, seed=0, stream=TRAINING_STREAM, iteration=0).corners

    assert (corners[:, 0] == -2).all()
    assert corners[:, 1:].min() >= 0
    assert corners[:, 1:].max() <= 20
    assert len(np.unique(corners[:, 1])) > 10


def test_a_pass_contains_every_slice_once():
    cases = load_cases(numbered(5, 4, 4), numbered(7, 4, 4))
    sampling = SamplingSpec(patch_size=(4, 4), batch_size=4, order="every-slice")

    def slices_of_pass(start):
        positions = [
            draw_positions(cases, sampling, seed=0, stream=TRAINING_STREAM, iteration=start + i)
            for i in range(3)
        ]
        return [(int(c), int(z)) for p in positions for c, z in zip(p.cases, p.corners[:, 0], strict=True)]

    assert iterations_per_pass(cases, sampling) == 3
    every_slice = sorted([(0, z) for z in range(5)] + [(1, z) for z in range(7)])
    assert sorted(slices_of_pass(0)) == every_slice
    assert sorted(slices_of_pass(3)) == every_slice
    assert slices_of_pass(0) != slices_of_pass(3)


def test_2d_batches_have_no_z_axis():
    batch = batch_of(load_cases(numbered(5, 12, 12)), SamplingSpec(patch_size=(8, 9), batch_size=2))

    assert batch.images.shape == (2, 2, 8, 9)
    assert batch.label_maps.shape == (2, 8, 9)


def test_mirroring_flips_images_and_labels_together():
    cases = load_cases(numbered(6, 6, 6))
    sampling = SamplingSpec(patch_size=(6, 6, 6), batch_size=16)

    batch = batch_of(cases, sampling, transforms=(MirrorTransform(axes=(0, 2)),))

    assert torch.equal(batch.images[:, 0], 10.0 * batch.label_maps)
    label_map = torch.tensor(numbered(6, 6, 6), dtype=torch.uint8)
    flips = [label_map.flip(axes) for axes in ((), (0,), (2,), (0, 2))]
    found = [
        next(n for n, flip in enumerate(flips) if torch.equal(flip, patch)) for patch in batch.label_maps
    ]
    assert set(found) == {0, 1, 2, 3}


def test_patches_contain_annotated_voxels_if_a_label_is_ignored():
    label_map = np.full((30, 30, 30), 9)
    label_map[3, 4, 5] = 0
    cases = load_cases(label_map, ignored=9)
    sampling = SamplingSpec(patch_size=(3, 3, 3), batch_size=6, foreground_fraction=0.0)

    assert (batch_of(cases, sampling).label_maps.flatten(1) == 0).any(1).all()
