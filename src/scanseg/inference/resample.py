"""Resampling of logits from the network's grid to the source grid.

Logits arrive, are resized and become labels slab by slab along z. So they are never held for the whole image, neither
on the network's grid nor on the source grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, Float32, Int64, UInt8
from scipy import ndimage

from scanseg.errors import ScansegError
from scanseg.inference.arrays import Array, Device, arrays_of, arrays_on, without_gradients
from scanseg.inference.uncertainty import entropy as entropy_of
from scanseg.inference.uncertainty import to_probabilities
from scanseg.preprocessing import place_in_source
from scanseg.specs import CaseGeometry

SLAB_BYTES = 128 << 20
"""Bytes of logits resized at a time."""


@dataclass(frozen=True, eq=False)
class SourceMaps:
    """Label map and other maps of a case on the source grid."""

    label_map: UInt8[np.ndarray, "*source"]
    """Label of each voxel. Cropped voxels are background."""
    probabilities: Float16[np.ndarray, "output *source"] | None
    """Probability of each output. Cropped voxels are background with probability 1. `None`: not asked for."""
    entropy: Float16[np.ndarray, "*source"] | None
    """Entropy of the probabilities, from 0 to 1. Cropped voxels have 0. `None`: not asked for."""
    disagreement: Float16[np.ndarray, "*source"] | None
    """Disagreement of the members, from 0 to 1, see `scanseg.inference.uncertainty`. Cropped voxels have 0."""


@without_gradients
def resample_to_source(
    slabs: Iterable[Float[Array, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    num_outputs: int,
    separate_z: bool,
    regions_class_order: Sequence[int] | None,
    device: Device,
    probabilities: bool = False,
    entropy: bool = False,
    temperatures: Sequence[float] | None = None,
    slab_bytes: int = SLAB_BYTES,
) -> SourceMaps:
    """Resize logits linearly and decide the label of each voxel.

    Args:
        slabs: Logits on the network's grid, slab by slab along z. Output i is label i, or region i. A channel after
            the outputs is the disagreement of members.
        geometry: Geometry of the network's grid in the source.
        num_outputs: Number of labels with background, or of regions.
        separate_z: Take the nearest slice along z, as in preprocessing (`scanseg.preprocessing.separates_z`).
        regions_class_order: Label value that each region writes where its logit is positive. Later regions overwrite
            earlier ones. `None`: the label with the largest logit.
        device: Device of the computation.
        probabilities: Return the probabilities too: sigmoid of each region, or softmax over labels.
        entropy: Return the entropy of the probabilities too.
        temperatures: Temperature of each output for the probabilities. `None`: all are 1.
        slab_bytes: Bytes of resized logits at a time, but at least one slice.

    Raises:
        ScansegError: A logit is not finite.
    """
    regions, shape = regions_class_order is not None, geometry.crop_shape
    labels = np.empty(shape, dtype=np.uint8)
    likely = np.empty((num_outputs, *shape), dtype=np.float16) if probabilities else None
    entropies = np.empty(shape, dtype=np.float16) if entropy else None
    disagreements = None
    slices = resample_slices(slabs, geometry, separate_z=separate_z, device=device, slab_bytes=slab_bytes)
    arrays = arrays_on(device)
    for row, values in enumerate(slices):
        logits = values[:num_outputs]
        labels[row] = arrays.to_numpy(decide_labels(logits, regions_class_order))
        if likely is not None or entropies is not None:
            plane = to_probabilities(logits, regions=regions, temperatures=temperatures)
            if likely is not None:
                likely[:, row] = arrays.to_numpy(plane, half=True)
            if entropies is not None:
                entropies[row] = arrays.to_numpy(entropy_of(plane, regions=regions), half=True)
        if len(values) > num_outputs:
            disagreements = np.empty(shape, dtype=np.float16) if disagreements is None else disagreements
            disagreements[row] = arrays.to_numpy(values[num_outputs], half=True)
    return SourceMaps(
        label_map=place_in_source(labels, geometry),
        probabilities=None if likely is None else _place_probabilities(likely, geometry, regions=regions),
        entropy=None if entropies is None else place_in_source(entropies, geometry),
        disagreement=None if disagreements is None else place_in_source(disagreements, geometry),
    )


def _place_probabilities(
    probabilities: Float16[np.ndarray, "output z y x"], geometry: CaseGeometry, *, regions: bool
) -> Float16[np.ndarray, "output *source"]:
    """Place probabilities in the source, with background in cropped voxels."""
    is_source_grid = geometry.axis_order == (0, 1, 2) and not any(geometry.flips)
    if is_source_grid and geometry.crop_shape == geometry.source_shape:
        return probabilities
    placed = place_in_source(probabilities, geometry)
    if not regions:
        placed[:1] = place_in_source(probabilities[:1], geometry, fill=1)
    return placed


@without_gradients
def resample_labels_to_source(
    slabs: Iterable[Float[Array, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
) -> UInt8[np.ndarray, "*source"]:
    """Decide labels on the network's grid and resize them by nearest neighbour.

    This is coarser than `resample_to_source`. Source: the published code of MSVM-UNet, Chen et al. 2024,
    arXiv:2408.13735: `scipy.ndimage.zoom` of order 0. It aligns the centres of the outermost voxels, not the borders.

    Args:
        slabs: Logits on the network's grid, slab by slab along z.
        geometry: Geometry of the network's grid in the source.
        num_outputs: Number of labels with background, or of regions.
        regions_class_order: As for `resample_to_source`.

    Raises:
        ScansegError: A logit is not finite.
    """
    parts = []
    for slab in slabs:
        _check_finite(slab)
        parts.append(arrays_of(slab).to_numpy(decide_labels(slab[:num_outputs], regions_class_order)))
    labels = np.concatenate(parts)
    zoom = [wanted / size for wanted, size in zip(geometry.crop_shape, labels.shape, strict=True)]
    return place_in_source(ndimage.zoom(labels, zoom, order=0), geometry)


def resample_slices(
    slabs: Iterable[Float[Array, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    device: Device,
    slab_bytes: int,
) -> Iterator[Float32[Array, "output y x"]]:
    """Yield the logits of each slice of the source.

    Slices lie along z of the cropped source grid. Several slices at a time are resized in-plane, and neighbours
    along z are interpolated.

    Args:
        slabs: As for `resample_to_source`, like the other arguments.
        geometry: See `resample_to_source`.
        separate_z: See `resample_to_source`.
        device: See `resample_to_source`.
        slab_bytes: See `resample_to_source`.

    Raises:
        ScansegError: A logit is not finite.
    """
    num_slices, *plane = geometry.crop_shape
    arrays = arrays_on(device)
    lower, upper, fraction = _z_neighbours(geometry.shape[0], num_slices, nearest=separate_z)
    row, end, carried = 0, 0, None
    for slab in slabs:
        start, end = end, end + slab.shape[1]
        reached = int(np.searchsorted(upper, end))
        num_rows = max(1, slab_bytes // (2 * 4 * len(slab) * plane[0] * plane[1]))
        while row < reached:
            rows = slice(row, min(row + num_rows, reached))
            needed, places = np.unique(np.concatenate((lower[rows], upper[rows])), return_inverse=True)
            slices = arrays.single(arrays.place(_take(carried, slab, needed - start)))
            _check_finite(slices)
            if tuple(slices.shape[2:]) != tuple(plane):
                slices = arrays.resize_planes(slices, (plane[0], plane[1]))
            below, above = (part.tolist() for part in np.split(places, 2))
            for low, high, weight in zip(below, above, fraction[rows].tolist(), strict=True):
                yield arrays.lerp(slices[:, low], slices[:, high], weight) if weight else slices[:, low]
            row = rows.stop
        if row < num_slices and slab.shape[1]:
            carried = arrays_of(slab).copy(slab[:, -1:])


def _take(
    carried: Float[Array, "output 1 y x"] | None,
    slab: Float[Array, "output slab y x"],
    places: Int64[np.ndarray, " taken"],
) -> Float[Array, "output taken y x"]:
    """Return slices of a slab.

    Number -1 is the last slice of the previous slab.
    """
    arrays = arrays_of(slab)
    inside = arrays.take(slab, places[places >= 0])
    if carried is None or places[0] >= 0:
        return inside
    return arrays.concatenate((carried, inside), axis=1)


def _z_neighbours(
    size: int, new_size: int, *, nearest: bool
) -> tuple[Int64[np.ndarray, " new"], Int64[np.ndarray, " new"], Float32[np.ndarray, " new"]]:
    """Return the neighbouring old slices of each new slice.

    They are the lower and the upper slice, and the fraction between them. The fraction is the distance from the lower
    slice in old slices.
    """
    centres = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    if nearest:
        closest = np.floor(centres + 0.5).clip(0, size - 1).astype(np.int64)
        return closest, closest, np.zeros(new_size, dtype=np.float32)
    centres = centres.clip(0, size - 1)
    lower = np.floor(centres).astype(np.int64)
    return lower, (lower + 1).clip(max=size - 1), (centres - lower).astype(np.float32)


def decide_labels(
    logits: Float[Array, "output *spatial"], regions_class_order: Sequence[int] | None
) -> UInt8[Array, "*spatial"]:
    """Return the label of each voxel.

    Args:
        logits: Logits of labels, or of regions.
        regions_class_order: Label value that each region writes where its logit is positive. Later regions overwrite
            earlier ones. `None`: the label with the largest logit.
    """
    arrays = arrays_of(logits)
    if regions_class_order is None:
        return arrays.argmax(logits)
    labels = arrays.argmax(logits[:1])  # zeros
    for value, region in zip(regions_class_order, logits, strict=True):
        labels = arrays.where(region > 0, value, labels)
    return labels


def _check_finite(logits: Array) -> None:
    """Raise an error unless all logits are finite."""
    if not arrays_of(logits).all_finite(logits):
        raise ScansegError(
            "the network's logits are not all finite. Predict in float32 (training.precision of the plan). If that "
            "does not help, the training failed. Train again."
        )
