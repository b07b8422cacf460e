"""Which patches make up a batch: cases, positions, and how the patch lies in the case.

Every draw depends on the seed and the number of the iteration alone, so that a training that is resumed goes on
as if it had never stopped. Drawing happens on the host; nothing here touches voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scanseg.specs import SamplingSpec

TRAINING_STREAM = 0
VALIDATION_STREAM = 1


@dataclass(frozen=True, eq=False)
class PatchPositions:
    """The patches of one batch, or of several, before augmentation."""

    cases: np.ndarray
    """Index of each patch's case, (batch,)."""
    corners: np.ndarray
    """First voxel of each patch along z, y, x, (batch, 3); may be negative where a case is smaller."""

    def within(self, here: slice) -> "PatchPositions":
        """Return the patches of a part of the batch."""
        return PatchPositions(self.cases[here], self.corners[here])

    @classmethod
    def join(cls, batches: "Sequence[PatchPositions]") -> "PatchPositions":
        """Return the patches of several batches, one batch behind the other."""
        return cls(
            np.concatenate([each.cases for each in batches]),
            np.concatenate([each.corners for each in batches]),
        )


class SampledCases(Protocol):
    """What drawing needs to know of cases, wherever they are held."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases."""

    @property
    def shapes_host(self) -> np.ndarray:
        """Voxels of each case along z, y, x, (case, 3)."""

    @property
    def locations(self) -> tuple[dict[str, np.ndarray], ...]:
        """For each case, label name to flat indices of some of its voxels; only labels that occur."""

    @property
    def annotated(self) -> tuple[np.ndarray, ...] | None:
        """For each case, flat indices of some voxels that are not ignored; None: there is no ignore label."""


def box_size(sampling: SamplingSpec) -> tuple[int, int, int]:
    """Return the patch along z, y, x; a 2D patch is one slice thick."""
    patch = sampling.patch_size
    return (1, patch[0], patch[1]) if len(patch) == 2 else (patch[0], patch[1], patch[2])


def iterations_per_pass(cases: SampledCases, sampling: SamplingSpec) -> int:
    """Return how many batches hold every slice of the cases once."""
    return -(-int(cases.shapes_host[:, 0].sum()) // sampling.batch_size)


def draw_positions(
    cases: SampledCases, sampling: SamplingSpec, *, seed: int, stream: int, iteration: int
) -> PatchPositions:
    """Draw the patches of one batch.

    Args:
        cases: The cases to draw from.
        sampling: How to draw.
        seed: Seed of the run.
        stream: `TRAINING_STREAM` or `VALIDATION_STREAM`; different draws for the same iteration.
        iteration: Number of the batch, from the beginning of the run.
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
    """Draw a voxel to centre a patch on; None: the patch may lie anywhere.

    It is a voxel of a label drawn first, by its weight, if so asked and the case has any; else, where there is an
    ignore label, any voxel that is annotated.
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
    """Draw one of some labels, each as often as its weight says (1 where it has none)."""
    if not weights:
        return labels[int(rng.integers(len(labels)))]
    shares = np.array([weights.get(name, 1.0) for name in labels])
    return labels[int(rng.choice(len(labels), p=shares / shares.sum()))]


def _draw_corner(
    shape: np.ndarray, size: np.ndarray, *, around: Sequence[int] | None, rng: np.random.Generator
) -> np.ndarray:
    """Draw where a patch begins: inside the case, centred where the case is smaller than the patch."""
    lowest = np.minimum(0, (shape - size) // 2)
    highest = np.maximum(lowest, shape - size)
    if around is None:
        return rng.integers(lowest, highest + 1)
    return np.clip(np.array(around) - size // 2, lowest, highest)


def _next_slices(
    cases: SampledCases, sampling: SamplingSpec, *, seed: int, stream: int, iteration: int
) -> PatchPositions:
    """Return the next batch of a shuffled pass over every slice; the last one is filled up from the first."""
    depths = cases.shapes_host[:, 0]
    slice_case = np.repeat(np.arange(len(depths)), depths)
    slice_z = np.concatenate([np.arange(depth) for depth in depths])
    a_pass, number = divmod(iteration, iterations_per_pass(cases, sampling))
    order = np.random.default_rng([seed, stream, a_pass]).permutation(len(slice_case))
    wanted = np.arange(number * sampling.batch_size, (number + 1) * sampling.batch_size) % len(order)
    chosen = order[wanted]
    corners = np.zeros((sampling.batch_size, 3), dtype=np.int64)
    corners[:, 0] = slice_z[chosen]
    return PatchPositions(slice_case[chosen], corners)
