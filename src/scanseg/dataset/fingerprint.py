"""Fingerprint of a data set: shapes, spacings, foreground intensities.

It holds the measurements that nnU-Net's planning needs.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scanseg.dataset.intensities import ChannelRanges, join_ranges, measure_ranges
from scanseg.dataset.mirror_likeness import LARGEST_NUM_CASES, cover_cells, measure_likeness
from scanseg.dataset.raw import RawCase, RawDataset, read_case
from scanseg.errors import InputError
from scanseg.imaging import SLICE_SPACING_MM, as_volume, axis_codes, find_nonzero_box, find_reorientation
from scanseg.messages import counted
from scanseg.runtime import RunContext, map_cases
from scanseg.specs import CaseMeasures, DatasetSpec, Fingerprint, IntensityStatistics

SAMPLES_PER_CASE = 10_000
SEED = 1234


@dataclass(frozen=True, eq=False)
class _Sample:
    """Contribution of one case to the fingerprint."""

    measures: CaseMeasures
    num_axes: int
    intensities: np.ndarray
    """Sampled foreground intensities, (channel, sample). Without foreground it has no samples."""
    ranges: ChannelRanges
    """Range of each channel."""
    shares: np.ndarray | None
    """Share of each label in the cells of the common grid. `None`: not measured."""


def compute_fingerprint(dataset: RawDataset, *, context: RunContext) -> Fingerprint:
    """Measure every case of a data set.

    Shapes are the shapes after cropping to the non-zero part. Intensities come from 10000 foreground voxels of each
    case with foreground, drawn with replacement and a fixed seed, so every case has the same weight. Unlike in nnU-Net,
    voxels with the ignore label are no foreground.

    Args:
        dataset: Data set to measure.
        context: Worker processes and progress.

    Raises:
        InputError: A case cannot be used, or no case has foreground.
    """
    every = math.ceil(len(dataset.cases) / LARGEST_NUM_CASES)
    covered = frozenset(case.name for case in dataset.cases[::every])
    samples = map_cases(
        partial(_sample_case, spec=dataset.spec, covered=covered),
        dataset.cases,
        context=context,
        task="measuring",
    )
    if not any(sample.intensities.size for sample in samples):
        raise InputError(
            f"{dataset.path}: none of {counted(len(samples), 'case')} has foreground. Correct the label maps or "
            "dataset.json."
        )
    if len({sample.num_axes for sample in samples}) > 1:
        raise InputError(f"{dataset.path}: images of 2 and of 3 axes in one data set. Keep one kind.")
    orientation = _most_frequent([sample.measures.orientation for sample in samples])
    intensities = np.concatenate([sample.intensities for sample in samples], axis=1)
    return Fingerprint(
        num_axes=samples[0].num_axes,
        cases=tuple(_reorient(sample.measures, orientation) for sample in samples),
        intensities=tuple(_describe(channel) for channel in intensities),
        intensity_ranges=join_ranges([sample.ranges for sample in samples]),
        mirror_likeness=_measure_likeness(samples, orientation),
        median_relative_size_after_crop=_median_kept(samples),
        orientation=orientation,
    )


def _sample_case(case: RawCase, spec: DatasetSpec, covered: frozenset[str]) -> _Sample:
    """Measure one case and draw intensities from its foreground."""
    image, label_map = read_case(case, num_channels=spec.num_channels)
    if image.num_channels != spec.num_channels:
        raise InputError(
            f"case {case.name}: expected {counted(spec.num_channels, 'channel')} as in dataset.json, got "
            f"{image.num_channels}. Correct channel_names or the files."
        )
    array = as_volume(image.array, image.num_axes)
    _, shape = find_nonzero_box(array)
    z, y, x = (SLICE_SPACING_MM, *image.spacing)[-3:]
    source_z, source_y, source_x = array.shape[1:]
    values = [value for values in spec.foreground.values() for value in values]
    return _Sample(
        measures=CaseMeasures(
            case=case.name,
            spacing=(z, y, x),
            shape=shape,
            source_shape=(source_z, source_y, source_x),
            orientation=axis_codes(image),
        ),
        num_axes=image.num_axes,
        intensities=_draw(image.array, np.isin(label_map.array[0], values)),
        ranges=measure_ranges(image.array),
        shares=cover_cells(as_volume(label_map.array[0], label_map.num_axes), spec)
        if case.name in covered
        else None,
    )


def _measure_likeness(
    samples: Sequence[_Sample], orientation: str | None
) -> tuple[float, float, float] | None:
    """Return the likeness of the labels and their mirror images."""
    covered = [(each.shares, each.measures.orientation) for each in samples if each.shares is not None]
    return measure_likeness(
        [shares for shares, _ in covered], [codes for _, codes in covered], orientation=orientation
    )


def _most_frequent(orientations: Sequence[str | None]) -> str | None:
    """Return the most frequent orientation.

    Of equally frequent ones, the first in the alphabet is chosen.
    """
    counts = Counter(codes for codes in orientations if codes is not None)
    return min(counts, key=lambda codes: (-counts[codes], codes)) if counts else None


def _reorient(measures: CaseMeasures, orientation: str | None) -> CaseMeasures:
    """Return the measures of a case in the data set's orientation."""
    if orientation is None or measures.orientation in (None, orientation):
        return measures
    (z, y, x), _ = find_reorientation(measures.orientation, orientation)
    spacing, shape, source = measures.spacing, measures.shape, measures.source_shape
    return measures.model_copy(
        update={
            "spacing": (spacing[z], spacing[y], spacing[x]),
            "shape": (shape[z], shape[y], shape[x]),
            "source_shape": (source[z], source[y], source[x]),
        }
    )


def _draw(array: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Return the intensities of all channels at voxels drawn from a mask.

    Args:
        array: Image (channel, *spatial).
        foreground: Mask of shape `spatial`.

    Returns:
        Intensities as float32, (channel, sample).
    """
    voxels = np.flatnonzero(foreground)
    if not voxels.size:
        return np.empty((len(array), 0), dtype=np.float32)
    drawn = np.random.default_rng(SEED).choice(voxels, SAMPLES_PER_CASE)
    return array.reshape(len(array), -1)[:, drawn].astype(np.float32)


def _describe(intensities: np.ndarray) -> IntensityStatistics:
    """Return the statistics of the sampled intensities of one channel."""
    values = intensities.astype(np.float64)
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return IntensityStatistics(
        mean=float(values.mean()),
        median=float(median),
        standard_deviation=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _median_kept(samples: Sequence[_Sample]) -> float:
    """Return the median over cases of the fraction of voxels after cropping."""
    kept = [math.prod(sample.measures.shape) / math.prod(sample.measures.source_shape) for sample in samples]
    return float(np.median(kept))
