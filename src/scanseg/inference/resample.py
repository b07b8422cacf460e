"""Resampling of logits from the network's grid to the source grid.

Logits arrive, are resized and become labels slab by slab along z. So they are never held for the whole image, neither
on the network's grid nor on the source grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int64, UInt8
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from scanseg.errors import ScansegError
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


@torch.inference_mode()
def resample_to_source(
    slabs: Iterable[Float[Tensor, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    num_outputs: int,
    separate_z: bool,
    regions_class_order: Sequence[int] | None,
    device: torch.device,
    probabilities: bool = False,
    entropy: bool = False,
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
    for row, values in enumerate(slices):
        logits = values[:num_outputs]
        labels[row] = decide_labels(logits, regions_class_order).cpu().numpy()
        if likely is not None or entropies is not None:
            plane = to_probabilities(logits, regions=regions)
            if likely is not None:
                likely[:, row] = plane.half().cpu().numpy()
            if entropies is not None:
                entropies[row] = entropy_of(plane, regions=regions).half().cpu().numpy()
        if len(values) > num_outputs:
            disagreements = np.empty(shape, dtype=np.float16) if disagreements is None else disagreements
            disagreements[row] = values[num_outputs].half().cpu().numpy()
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


@torch.inference_mode()
def resample_labels_to_source(
    slabs: Iterable[Float[Tensor, "output slab y x"]],
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
        parts.append(decide_labels(slab[:num_outputs], regions_class_order).cpu().numpy())
    labels = np.concatenate(parts)
    zoom = [wanted / size for wanted, size in zip(geometry.crop_shape, labels.shape, strict=True)]
    return place_in_source(ndimage.zoom(labels, zoom, order=0), geometry)


def resample_slices(
    slabs: Iterable[Float[Tensor, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    device: torch.device,
    slab_bytes: int,
) -> Iterator[Float32[Tensor, "output y x"]]:
    """Yield the logits of each slice of the source.

    Slices are those of the cropped source grid along z. Several slices at a time are resized in-plane, and neighbours
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
    lower, upper, fraction = _z_neighbours(geometry.shape[0], num_slices, nearest=separate_z)
    row, end, carried = 0, 0, None
    for slab in slabs:
        start, end = end, end + slab.shape[1]
        reached = int(torch.searchsorted(upper, end))
        num_rows = max(1, slab_bytes // (2 * 4 * len(slab) * plane[0] * plane[1]))
        while row < reached:
            rows = slice(row, min(row + num_rows, reached))
            needed, places = torch.cat((lower[rows], upper[rows])).unique(return_inverse=True)
            slices = _take(carried, slab, needed - start).to(device, torch.float32)
            _check_finite(slices)
            if slices.shape[2:] != tuple(plane):
                slices = F.interpolate(slices, size=tuple(plane), mode="bilinear", align_corners=False)
            below, above = (part.tolist() for part in places.chunk(2))
            for low, high, weight in zip(below, above, fraction[rows].tolist(), strict=True):
                yield torch.lerp(slices[:, low], slices[:, high], weight) if weight else slices[:, low]
            row = rows.stop
        if row < num_slices and slab.shape[1]:
            carried = slab[:, -1:].clone()


def _take(
    carried: Float[Tensor, "output 1 y x"] | None,
    slab: Float[Tensor, "output slab y x"],
    places: Int64[Tensor, " taken"],
) -> Float[Tensor, "output taken y x"]:
    """Return slices of a slab.

    Number -1 is the last slice of the previous slab.
    """
    inside = slab[:, places[places >= 0].to(slab.device)]
    if carried is None or int(places[0]) >= 0:
        return inside
    return torch.cat((carried, inside), dim=1)


def _z_neighbours(
    size: int, new_size: int, *, nearest: bool
) -> tuple[Int64[Tensor, " new"], Int64[Tensor, " new"], Float32[Tensor, " new"]]:
    """Return the neighbouring old slices of each new slice.

    They are the lower and the upper slice, and the fraction between them. The fraction is the distance from the lower
    slice in old slices.
    """
    centres = size / new_size * (torch.arange(new_size, dtype=torch.float64) + 0.5) - 0.5
    if nearest:
        closest = (centres + 0.5).floor().clamp(0, size - 1).long()
        return closest, closest, torch.zeros(new_size)
    centres = centres.clamp(0, size - 1)
    lower = centres.floor().long()
    return lower, (lower + 1).clamp(max=size - 1), (centres - lower).float()


def decide_labels(
    logits: Float[Tensor, "output *spatial"], regions_class_order: Sequence[int] | None
) -> UInt8[Tensor, "*spatial"]:
    """Return the label of each voxel.

    Args:
        logits: Logits of labels, or of regions.
        regions_class_order: Label value that each region writes where its logit is positive. Later regions overwrite
            earlier ones. `None`: the label with the largest logit.
    """
    if regions_class_order is None:
        # Equal to argmax, in less than half of its time on a CPU.
        return logits.max(0).indices.to(torch.uint8)
    labels = torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for value, region in zip(regions_class_order, logits, strict=True):
        labels = labels.masked_fill(region > 0, value)
    return labels


def _check_finite(logits: Tensor) -> None:
    """Raise an error unless all logits are finite."""
    if not logits.isfinite().all():
        raise ScansegError(
            "the network's logits are not all finite. Predict in float32 (training.precision of the plan). If that "
            "does not help, the training failed. Train again."
        )
