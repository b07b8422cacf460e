"""Sampling: the cases and positions of the patches of a batch.

Every draw depends only on the seed and the number of the iteration. So a resumed training continues exactly. Draws
happen on the host, and no voxels are read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from scanseg.specs import SamplingSpec

TRAINING_STREAM = 0
"""Stream of random draws for training batches."""
VALIDATION_STREAM = 1
"""Stream of random draws for validation batches."""


@dataclass(frozen=True, eq=False)
class PatchPositions:
    """Cases and positions of the patches of one or more batches."""

    cases: np.ndarray
    """Index of the case of each patch, (batch,)."""
    corners: np.ndarray
    """First voxel of each patch along z, y, x, (batch, 3). Negative if a case is smaller than a patch."""

    def within(self, part: slice) -> "PatchPositions":
        """Return the patches of a part of the batch.

        Args:
            part: Range of patches.
        """
        return PatchPositions(self.cases[part], self.corners[part])

    @classmethod
    def join(cls, batches: "Sequence[PatchPositions]") -> "PatchPositions":
        """Return the patches of several batches in order.

        Args:
            batches: Patches of each batch.
        """
        return cls(
            np.concatenate([each.cases for each in batches]),
            np.concatenate([each.corners for each in batches]),
        )


class SampledCases(Protocol):
    """Properties of cases that sampling needs, in memory or on disk."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases."""

    @property
    def shapes_host(self) -> np.ndarray:
        """Voxels of each case along z, y, x, (case, 3)."""

    @property
    def locations(self) -> tuple[dict[str, np.ndarray], ...]:
        """Flat indices of some voxels of each case, by label name.

        Absent labels have no entry.
        """

    @property
    def annotated(self) -> tuple[np.ndarray, ...] | None:
        """Flat indices of some annotated voxels of each case.

        `None`: no ignore label exists.
        """


def box_size(sampling: SamplingSpec) -> tuple[int, int, int]:
    """Return the size of a patch along z, y, x.

    A 2D patch is one slice thick.

    Args:
        sampling: Sampling with a patch size of 2 or 3 axes.
    """
    patch = sampling.patch_size
    return (1, patch[0], patch[1]) if len(patch) == 2 else (patch[0], patch[1], patch[2])


def iterations_per_pass(cases: SampledCases, sampling: SamplingSpec) -> int:
    """Return the number of batches that contain every slice once.

    Args:
        cases: The cases.
        sampling: Sampling with the batch size.
    """
    return -(-int(cases.shapes_host[:, 0].sum()) // sampling.batch_size)


def draw_positions(
    cases: SampledCases, sampling: SamplingSpec, *, seed: int, stream: int, iteration: int
) -> PatchPositions:
    """Draw the patches of one batch.

    Args:
        cases: Cases to draw from.
        sampling: Patch size, batch size and order of draws.
        seed: Seed of the training.
        stream: `TRAINING_STREAM` or `VALIDATION_STREAM`, which draw differently in the same iteration.
        iteration: Number of the batch, from the start of the training.
    """
    if sampling.order == "every-slice":
        return _next_slices(cases, sampling, seed=seed, stream=stream, iteration=iteration)
    rng = np.random.default_rng([seed, stream, iteration])
    size = np.array(box_size(sampling))
    chosen = rng.integers(len(cases.names), size=sampling.batch_size)
    num_foreground = round(sampling.batch_size * sampling.foreground_fraction)
    corners = []
    for number, case in enumerate(chosen):
        on_foreground = number >= sampling.batch_size - num_foreground
        around = _draw_centre(
            cases, int(case), on_foreground=on_foreground, weights=sampling.label_weights, rng=rng
        )
        corners.append(_draw_corner(cases.shapes_host[case], size, around=around, rng=rng))
    return PatchPositions(chosen, np.stack(corners))


def _draw_centre(
    cases: SampledCases,
    case: int,
    *,
    on_foreground: bool,
    weights: Mapping[str, float],
    rng: np.random.Generator,
) -> Sequence[int] | None:
    """Draw a voxel as centre of a patch.

    If `on_foreground` is true and the case has labels, a label is drawn by its weight and then a voxel of it.
    Otherwise, if an ignore label exists, any annotated voxel is drawn.

    Returns:
        Voxel along z, y, x. `None`: the patch may lie anywhere.
    """
    labels = [name for name in cases.locations[case] if weights.get(name, 1.0) > 0]
    if on_foreground and labels:
        voxels = cases.locations[case][_draw_label(labels, weights, rng)]
    elif cases.annotated is not None and len(cases.annotated[case]):
        voxels = cases.annotated[case]
    else:
        return None
    voxel = int(voxels[rng.integers(len(voxels))])
    return [int(index) for index in np.unravel_index(voxel, tuple(cases.shapes_host[case]))]


def _draw_label(labels: Sequence[str], weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """Draw a label with a probability proportional to its weight.

    The weight defaults to 1.
    """
    if not weights:
        return labels[int(rng.integers(len(labels)))]
    shares = np.array([weights.get(name, 1.0) for name in labels])
    return labels[int(rng.choice(len(labels), p=shares / shares.sum()))]


def _draw_corner(
    shape: np.ndarray, size: np.ndarray, *, around: Sequence[int] | None, rng: np.random.Generator
) -> np.ndarray:
    """Draw the first voxel of a patch inside the case.

    Along axes on which the case is smaller, the patch is centred.
    """
    lowest = np.minimum(0, (shape - size) // 2)
    highest = np.maximum(lowest, shape - size)
    if around is None:
        return rng.integers(lowest, highest + 1)
    return np.clip(np.array(around) - size // 2, lowest, highest)


def _next_slices(
    cases: SampledCases, sampling: SamplingSpec, *, seed: int, stream: int, iteration: int
) -> PatchPositions:
    """Return the next batch of a shuffled pass over every slice.

    The last batch is filled with the first slices.
    """
    ends = np.cumsum(cases.shapes_host[:, 0])
    pass_number, number = divmod(iteration, iterations_per_pass(cases, sampling))
    order = _order_of_pass(int(ends[-1]), seed=seed, stream=stream, pass_number=pass_number)
    wanted = np.arange(number * sampling.batch_size, (number + 1) * sampling.batch_size) % len(order)
    chosen = order[wanted]
    slice_case = np.searchsorted(ends, chosen, side="right")
    corners = np.zeros((sampling.batch_size, 3), dtype=np.int64)
    corners[:, 0] = chosen - ends[slice_case] + cases.shapes_host[slice_case, 0]
    return PatchPositions(slice_case, corners)


@lru_cache(maxsize=4)
def _order_of_pass(num_slices: int, *, seed: int, stream: int, pass_number: int) -> np.ndarray:
    """Return the shuffled numbers of all slices in a pass.

    The passes of training and validation are kept, since each serves many batches.
    """
    order = np.random.default_rng([seed, stream, pass_number]).permutation(num_slices)
    order.setflags(write=False)
    return order
