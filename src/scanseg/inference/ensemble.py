"""Mean probabilities of networks with different plans, on the source grid.

Plans differ in spacing, cropping and windows, so only the source grid is common. The logits of every plan arrive slab
by slab, are resized, and become probabilities slice by slice. The mean is taken slice by slice too, so probabilities
are never held for the whole image.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net): the mean of the softmax of two configurations.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8

from scanseg.inference.arrays import Array, Device, arrays_on, without_gradients
from scanseg.inference.prediction import PlanPrediction
from scanseg.inference.resample import SLAB_BYTES, SourceMaps, decide_labels, resample_slices
from scanseg.inference.uncertainty import entropy as entropy_of
from scanseg.inference.uncertainty import to_probabilities
from scanseg.preprocessing import flip, permute, place_in_source
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.specs import CaseGeometry


@without_gradients
def average_on_source(
    predictions: Sequence[PlanPrediction],
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
    device: Device,
    probabilities: bool = False,
    uncertainty: bool = False,
    slab_bytes: int = SLAB_BYTES,
) -> SourceMaps:
    """Return the maps of a case by mean probabilities of several plans.

    The disagreement is H(p) - mean_k max(0, H(p_k) - d_k). Here p_k and d_k are the probabilities and the disagreement
    of plan k, and p is the mean of all p_k. It measures disagreement between plans and within each plan, as in
    `scanseg.inference.uncertainty`. Each plan has the same weight, whatever its number of networks.

    Args:
        predictions: Predictions of one case, at least one.
        num_outputs: Number of labels with background, or of regions.
        regions_class_order: Label value that each region writes where its probability is above 0.5. Later regions
            overwrite earlier ones. `None`: the label with the largest probability.
        device: Device of the computation.
        probabilities: Return the mean probabilities too.
        uncertainty: Return their entropy and the disagreement too.
        slab_bytes: Bytes of resized logits of all plans at a time, but at least one slice of each.

    Raises:
        ScansegError: A logit is not finite.
    """
    regions, geometry = regions_class_order is not None, _uncropped(predictions[0].geometry)
    shape = geometry.crop_shape
    labels = np.empty(shape, dtype=np.uint8)
    means = np.empty((num_outputs, *shape), dtype=np.float16) if probabilities else None
    entropies, disagreements = (np.empty(shape, dtype=np.float16) if uncertainty else None for _ in range(2))
    slices = _joint_slices(
        predictions, num_outputs=num_outputs, regions=regions, device=device, slab_bytes=slab_bytes
    )
    arrays = arrays_on(device)
    for row, parts in enumerate(slices):
        mean = _mean([part[:num_outputs] for part in parts])
        labels[row] = arrays.to_numpy(_decide(mean, regions_class_order))
        if means is not None:
            means[:, row] = arrays.to_numpy(mean, half=True)
        if entropies is not None and disagreements is not None:
            entropy = entropy_of(mean, regions=regions)
            own = _mean([_own_entropy(part, num_outputs=num_outputs, regions=regions) for part in parts])
            entropies[row] = arrays.to_numpy(entropy, half=True)
            disagreements[row] = arrays.to_numpy((entropy - own).clip(0, 1), half=True)
    return SourceMaps(
        label_map=place_in_source(labels, geometry),
        probabilities=None if means is None else place_in_source(means, geometry),
        entropy=None if entropies is None else place_in_source(entropies, geometry),
        disagreement=None if disagreements is None else place_in_source(disagreements, geometry),
    )


@without_gradients
def label_maps_of_groups(
    predictions: Sequence[PlanPrediction],
    groups: Sequence[Sequence[int]],
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
    device: Device,
    slab_bytes: int = SLAB_BYTES,
) -> list[UInt8[np.ndarray, "*source"]]:
    """Return one label map per group of predictions.

    Each is the label map of `average_on_source` for the group. Every prediction is computed only once.

    Args:
        predictions: Predictions of one case.
        groups: Indices of the predictions of each group.
        num_outputs: As for `average_on_source`, like the other arguments.
        regions_class_order: See `average_on_source`.
        device: See `average_on_source`.
        slab_bytes: See `average_on_source`.

    Raises:
        ScansegError: A logit is not finite.
    """
    geometry = _uncropped(predictions[0].geometry)
    label_maps = [np.empty(geometry.crop_shape, dtype=np.uint8) for _ in groups]
    slices = _joint_slices(
        predictions,
        num_outputs=num_outputs,
        regions=regions_class_order is not None,
        device=device,
        slab_bytes=slab_bytes,
    )
    for row, parts in enumerate(slices):
        for labels, group in zip(label_maps, groups, strict=True):
            mean = _mean([parts[number][:num_outputs] for number in group])
            labels[row] = arrays_on(device).to_numpy(_decide(mean, regions_class_order))
    return [place_in_source(labels, geometry) for labels in label_maps]


def share_progress(progress: ProgressCallback, count: int) -> list[ProgressCallback]:
    """Return callbacks for simultaneous predictions that report one sum.

    Args:
        progress: Called with the sum of all windows.
        count: Number of predictions.
    """
    latest: list[ProgressUpdate | None] = [None] * count

    def share(number: int) -> ProgressCallback:
        def report(update: ProgressUpdate) -> None:
            latest[number] = update
            parts = [part for part in latest if part is not None]
            done, total = sum(part.done for part in parts), sum(part.total for part in parts)
            progress(replace(update, done=done, total=total))

        return report

    return [share(number) for number in range(count)]


@without_gradients
def _joint_slices(
    predictions: Sequence[PlanPrediction],
    *,
    num_outputs: int,
    regions: bool,
    device: Device,
    slab_bytes: int,
) -> Iterator[list[Float32[Array, "channel y x"]]]:
    """Yield the probabilities of all plans for each slice of the source.

    Slices are those along z of the first prediction. The disagreement, if any, is the last channel.
    """
    first, slab_bytes = predictions[0].geometry, slab_bytes // len(predictions)
    streams = []
    for prediction in predictions:
        stream = _placed_slices(
            prediction, num_outputs=num_outputs, regions=regions, device=device, slab_bytes=slab_bytes
        )
        if _axes_of(prediction.geometry) != _axes_of(first):
            stream = _permuted_slices(stream, prediction, like=first, device=device)
        streams.append(stream)
    for parts in zip(*streams, strict=True):
        yield list(parts)


@without_gradients
def _placed_slices(
    prediction: PlanPrediction, *, num_outputs: int, regions: bool, device: Device, slab_bytes: int
) -> Iterator[Float32[Array, "channel y x"]]:
    """Yield the probabilities of every slice of the source.

    Slices are those along z of the plan. Cropped voxels are background with probability 1.
    """
    geometry = prediction.geometry
    depth, height, width = _uncropped(geometry).crop_shape
    (start, top, left), (count, rows, columns) = geometry.crop_start, geometry.crop_shape
    arrays = arrays_on(device)
    padding = {"rows": (top, height - top - rows), "columns": (left, width - left - columns)}
    is_padded = (height, width) != (rows, columns)
    outside = arrays.zeros((prediction.num_channels, height, width))
    outside[0] = 0 if regions else 1
    logits = resample_slices(
        prediction.slabs, geometry, separate_z=prediction.separate_z, device=device, slab_bytes=slab_bytes
    )
    for _ in range(start):
        yield outside
    for values in logits:
        probabilities = to_probabilities(values[:num_outputs], regions=regions)
        placed = arrays.pad_planes(arrays.concatenate((probabilities, values[num_outputs:])), **padding)
        if is_padded and not regions:
            placed[0] += 1 - arrays.pad_planes(arrays.zeros((rows, columns)) + 1, **padding)
        yield placed
    for _ in range(depth - start - count):
        yield outside


@without_gradients
def _permuted_slices(
    slices: Iterable[Float32[Array, "channel y x"]],
    prediction: PlanPrediction,
    *,
    like: CaseGeometry,
    device: Device,
) -> Iterator[Float32[Array, "channel y x"]]:
    """Yield the slices of a case along z of another axis order.

    A temporary file holds all of them as float16.
    """
    depth, height, width = _uncropped(prediction.geometry).crop_shape
    arrays = arrays_on(device)
    with tempfile.TemporaryFile() as file:
        stored = np.memmap(
            file, dtype=np.float16, mode="w+", shape=(prediction.num_channels, depth, height, width)
        )
        for row, values in enumerate(slices):
            stored[:, row] = arrays.to_numpy(values, half=True)
        geometry = prediction.geometry
        source = permute(flip(stored, geometry.flips), _inverse(geometry.axis_order))
        permuted = flip(permute(source, like.axis_order), like.flips)
        for row in range(permuted.shape[1]):
            yield arrays.of(np.ascontiguousarray(permuted[:, row]))


def _own_entropy(
    part: Float32[Array, "channel y x"], *, num_outputs: int, regions: bool
) -> Float32[Array, "y x"]:
    """Return the mean entropy of a plan's members.

    It is the entropy of the probabilities minus the disagreement, and at least 0: probabilities of mean logits can
    have less entropy than the mean of the members' probabilities.
    """
    own = entropy_of(part[:num_outputs], regions=regions)
    return (own - part[num_outputs]).clip(min=0) if len(part) > num_outputs else own


def _mean(parts: Sequence[Float32[Array, "*shape"]]) -> Float32[Array, "*shape"]:
    """Return the mean of arrays without stacking them."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)


def _decide(
    probabilities: Float32[Array, "output y x"], regions_class_order: Sequence[int] | None
) -> UInt8[Array, "y x"]:
    """Return the label of each voxel."""
    if regions_class_order is None:
        return decide_labels(probabilities, None)
    return decide_labels(probabilities - 0.5, regions_class_order)


def _uncropped(geometry: CaseGeometry) -> CaseGeometry:
    """Return the geometry of the whole source with permuted axes."""
    lifted = (1,) * (3 - geometry.num_axes) + geometry.source_shape
    z, y, x = (lifted[axis] for axis in geometry.axis_order)
    return geometry.model_copy(update={"crop_start": (0, 0, 0), "crop_shape": (z, y, x)})


def _axes_of(geometry: CaseGeometry) -> tuple[object, ...]:
    """Return the order and the flips of a network's axes."""
    return geometry.axis_order, geometry.flips


def _inverse(axis_order: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the axis order that undoes another."""
    z, y, x = (axis_order.index(axis) for axis in range(3))
    return z, y, x
