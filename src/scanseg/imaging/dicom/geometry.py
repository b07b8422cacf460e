"""Order, spacing and direction of the slices of a series."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Float64

from scanseg.errors import InputError
from scanseg.imaging.dicom.series import Series
from scanseg.imaging.dicom.slices import Slice
from scanseg.imaging.header import ImageGrid
from scanseg.imaging.right_angles import straighten_axes
from scanseg.messages import counted, listed

_SAME_DIRECTION = 1e-3
"""Largest difference of equal direction cosines."""
_LENGTH_TOLERANCE = 0.02
"""Largest difference from 1 of the length of direction cosines."""
_SAME_SPACING = 1e-3
"""Largest relative difference of equal spacings of pixels."""
_PLACE_TOLERANCE = 0.1
"""Largest distance of a slice from its regular place, in voxels."""
_NOTED_DISTANCE = 0.01
"""Largest distance of a slice from its regular place without a warning, in voxels."""
_SAME_PLACE = 0.1
"""Largest distance of slices at one place, as part of the usual distance."""
_GAP = 1.5
"""Smallest distance of slices between which one is missing, as part of the usual distance."""
_CONTEXT = ("patient", "study", "frame of reference")


@dataclass(frozen=True)
class SliceStack:
    """The slices of a series in the order of the volume."""

    slices: tuple[Slice, ...]
    """Slices along z, the normal of the slices."""
    grid: ImageGrid
    """Grid of the volume."""
    warnings: tuple[str, ...] = ()
    """Contradictions in the headers that do not prevent reading."""


def stack_slices(series: Series) -> SliceStack:
    """Order the slices of a series into a volume.

    Args:
        series: The series.

    Raises:
        InputError: The series is no volume of regular slices: a localizer, multi-frame or colour objects, compressed
            pixels without decoder, no positions, several sizes, orientations or patients, several slices at one
            place, missing slices, different distances, or a tilted gantry.
    """
    slices, warnings = _drop_copies(series)
    _refuse_objects(series, slices)
    _refuse_mixtures(series, slices)
    row, column = np.reshape(slices[0].orientation or (), (2, 3)).astype(np.float64)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    places = np.array([each.position for each in slices], np.float64)
    order = np.argsort(places @ normal, kind="stable")
    slices, places = [slices[index] for index in order], places[order]
    if len(slices) == 1:
        step, more = _single_step(series, slices[0], normal)
    else:
        step, more = _regular_step(series, slices, places, normal)
    y_size, x_size = slices[0].spacing or (1.0, 1.0)
    axes = straighten_axes(series.path, np.stack([row * x_size, column * y_size, step], axis=1))
    warnings += more if axes.warning is None else [*more, axes.warning]
    grid = ImageGrid(
        shape=(len(slices), *slices[0].shape),
        spacing=(float(axes.sizes[2]), y_size, x_size),
        origin=tuple(float(value) for value in places[0]),
        direction=tuple(float(value) for value in axes.direction.ravel()),
    )
    return SliceStack(tuple(slices), grid, tuple(warnings))


def _refuse(series: Series, text: str) -> NoReturn:
    """Raise an error that names the series."""
    raise InputError(f"{series.path}: {text}.")


def _drop_copies(series: Series) -> tuple[list[Slice], list[str]]:
    """Return each instance once, and a warning about copies."""
    first: dict[str, Slice] = {}
    copies = []
    for each in series.slices:
        known = first.setdefault(each.instance, each)
        if known is not each:
            if (known.position, known.shape) != (each.position, each.shape):
                _refuse(
                    series,
                    f"expected a UID of its own for each instance, got {each.instance} in {known.member.name} and "
                    f"{each.member.name}, which differ. Remove one of them",
                )
            copies.append(each.member.name)
    if not copies:
        return list(first.values()), []
    return list(first.values()), [
        f"{series.path}: {counted(len(copies), 'copy', 'copies')} of instances left out: {listed(copies)}."
    ]


def _refuse_objects(series: Series, slices: Sequence[Slice]) -> None:
    """Refuse objects that are no slices with a position."""
    localizers = [each for each in slices if each.is_localizer]
    if localizers:
        _refuse(
            series,
            f"expected slices of a volume, got a localizer ({len(localizers)} of {counted(len(slices), 'image')}). "
            "Choose another series",
        )
    faults = Counter(each.fault for each in slices if each.fault is not None)
    if faults:
        fault, number = faults.most_common(1)[0]
        _refuse(series, f"{fault} ({number} of {counted(len(slices), 'file')})")
    for name, values in (
        ("position (ImagePositionPatient)", [each.position for each in slices]),
        ("orientation (ImageOrientationPatient)", [each.orientation for each in slices]),
        ("pixel spacing (PixelSpacing)", [each.spacing for each in slices]),
    ):
        if None in values:
            lacking = [each.member.name for each, value in zip(slices, values, strict=True) if value is None]
            _refuse(
                series,
                f"expected slices with a valid {name}, got none in {listed(lacking)}. Projections have no position in "
                "space. Give a series of slices",
            )


def _refuse_mixtures(series: Series, slices: Sequence[Slice]) -> None:
    """Refuse slices of several volumes."""
    for place, name in enumerate(_CONTEXT):
        if len({each.context[place] for each in slices}) > 1:
            _refuse(series, f"expected slices of one {name}, got several. Separate the files")
    shapes = Counter(each.shape for each in slices)
    if len(shapes) > 1:
        found = listed([f"{y} x {x} in {number}" for (y, x), number in shapes.items()])
        _refuse(series, f"expected slices of one size, got {found}. Split the series by dcm2niix")
    first = slices[0]
    if min(first.shape) == 0 or min(first.spacing or (0.0,)) <= 0:
        _refuse(series, f"expected pixels and spacings above 0, got {first.shape} of {first.spacing} mm")
    if any(not np.allclose(each.spacing or (), first.spacing or (), rtol=_SAME_SPACING) for each in slices):
        _refuse(series, "expected one pixel spacing, got several. Split the series by dcm2niix")
    directions = np.array([each.orientation for each in slices])
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        _refuse(
            series,
            "expected slices of one orientation, got mixed orientations (such as a localizer or a radial scan). "
            "Split the series by dcm2niix",
        )
    lengths = np.linalg.norm(directions[0].reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > _LENGTH_TOLERANCE:
        _refuse(
            series,
            f"expected direction cosines of length 1, got {np.round(lengths, 4).tolist()}. Fix the headers",
        )


def _single_step(
    series: Series, only: Slice, normal: Float64[np.ndarray, "3"]
) -> tuple[Float64[np.ndarray, "3"], list[str]]:
    """Return the thickness of a single slice as the step along z."""
    size = only.thickness
    text = "expected several slices, got one"
    if not size:
        _refuse(series, f"{text} without thickness. Give all files of the series")
    return normal * size, [
        f"{series.path}: {text}. Its thickness of {size:g} mm is used as the spacing along z."
    ]


def _regular_step(
    series: Series,
    slices: Sequence[Slice],
    places: Float64[np.ndarray, "slice 3"],
    normal: Float64[np.ndarray, "3"],
) -> tuple[Float64[np.ndarray, "3"], list[str]]:
    """Return the step between slices, and a warning about deviations.

    Raises:
        InputError: Slices lie more than a tenth of a voxel beside their regular place.
    """
    gaps = np.diff(places @ normal)
    _refuse_repeated(series, gaps)
    usual = float(np.median(gaps))
    missing = np.flatnonzero(gaps > _GAP * usual)
    if len(missing):
        pairs = [
            f"{slices[place].member.name} and {slices[place + 1].member.name}" for place in missing.tolist()
        ]
        number = round(float((gaps[missing] / usual - 1).sum()))
        _refuse(
            series,
            f"expected a slice every {usual:.4g} mm, got {counted(max(number, 1), 'missing slice')}, between "
            f"{listed(pairs)}. Add the missing files",
        )
    step = (places[-1] - places[0]) / (len(places) - 1)
    regular = places[0] + np.arange(len(places))[:, np.newaxis] * step
    along = (places - regular) @ normal
    across = np.linalg.norm(places - regular - along[:, np.newaxis] * normal, axis=1)
    apart, beside = float(np.abs(along).max() / usual), float(across.max() / min(slices[0].spacing or (1.0,)))
    if max(apart, beside) > _PLACE_TOLERANCE:
        _refuse(
            series,
            f"expected slices at equal distances, got distances of {gaps.min():.4g} to {gaps.max():.4g} mm along the "
            f"normal, and slices {max(apart, beside):.2g} voxels beside their regular place. Resample the series, for "
            "example by dcm2niix",
        )
    if max(apart, beside) <= _NOTED_DISTANCE:
        return step, []
    return step, [
        f"{series.path}: expected slices at equal distances, got slices {max(apart, beside):.2g} voxels beside their "
        f"regular place. The mean distance of {np.linalg.norm(step):.4g} mm is used."
    ]


def _refuse_repeated(series: Series, gaps: Float64[np.ndarray, "gap"]) -> None:
    """Refuse several slices at one place."""
    apart = gaps[gaps > 1e-3]
    repeated = int((gaps < _SAME_PLACE * np.median(apart)).sum()) if len(apart) else len(gaps)
    if repeated:
        _refuse(
            series,
            f"expected one slice at each place, got {counted(repeated, 'more', 'more')} at places of others (several "
            "phases, echoes or b-values, or a series that was sent twice). Split the series by dcm2niix, or remove "
            "duplicates",
        )
