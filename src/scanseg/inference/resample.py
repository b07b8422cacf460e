"""Bring logits on the network's grid back to the source's grid, as label map, probabilities and uncertainty.

Logits come, are resized and are reduced to labels slab by slab along z, so that they are never held whole, neither on
the network's grid nor on the source's.
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
"""Bytes of the logits that are resized at a time."""


@dataclass(frozen=True, eq=False)
class Restored:
    """What logits become on the source's grid."""

    label_map: UInt8[np.ndarray, "*source"]
    """Background where cropping cut away."""
    probabilities: Float16[np.ndarray, "output *source"] | None
    """Certain background where cropping cut away."""
    entropy: Float16[np.ndarray, "*source"] | None
    """Entropy of the probabilities as a part of the largest possible; 0 where cropping cut away."""
    disagreement: Float16[np.ndarray, "*source"] | None
    """How much the members of the prediction disagree, see `scanseg.inference.uncertainty`; 0 there."""


@torch.inference_mode()
def restore(
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
) -> Restored:
    """Resize logits linearly and decide each voxel's label, and what else is wanted.

    Args:
        slabs: Logits on the network's grid, slab by slab along z; output i is label i, or region i. A channel behind
            them is the disagreement of members.
        geometry: Where the case lies.
        num_outputs: Labels with background, or regions.
        separate_z: Take the nearest slice along z, as preprocessing did (`scanseg.preprocessing.separates_z`).
        regions_class_order: Label that each region writes where its logit is positive, later ones over earlier ones;
            None: the label with the largest logit.
        device: Where to compute.
        probabilities: Return the probabilities too: of each region by itself (sigmoid), else of labels (softmax).
        entropy: Return the entropy of the probabilities too.
        slab_bytes: Bytes of resized logits at a time; one slice at least.

    Raises:
        ScansegError: A logit is not finite.
    """
    regions, shape = regions_class_order is not None, geometry.crop_shape
    labels = np.empty(shape, dtype=np.uint8)
    whole = np.empty((num_outputs, *shape), dtype=np.float16) if probabilities else None
    doubts = np.empty(shape, dtype=np.float16) if entropy else None
    disputes = None
    slices = resized_slices(slabs, geometry, separate_z=separate_z, device=device, slab_bytes=slab_bytes)
    for row, values in enumerate(slices):
        logits = values[:num_outputs]
        labels[row] = decide(logits, regions_class_order).cpu().numpy()
        if whole is not None or doubts is not None:
            likely = to_probabilities(logits, regions=regions)
            if whole is not None:
                whole[:, row] = likely.half().cpu().numpy()
            if doubts is not None:
                doubts[row] = entropy_of(likely, regions=regions).half().cpu().numpy()
        if len(values) > num_outputs:
            disputes = np.empty(shape, dtype=np.float16) if disputes is None else disputes
            disputes[row] = values[num_outputs].half().cpu().numpy()
    return Restored(
        label_map=place_in_source(labels, geometry),
        probabilities=None if whole is None else _place_probabilities(whole, geometry, regions=regions),
        entropy=None if doubts is None else place_in_source(doubts, geometry),
        disagreement=None if disputes is None else place_in_source(disputes, geometry),
    )


def _place_probabilities(
    probabilities: Float16[np.ndarray, "output z y x"], geometry: CaseGeometry, *, regions: bool
) -> Float16[np.ndarray, "output *source"]:
    """Bring probabilities to the source's grid; what cropping cut away is background for certain."""
    if geometry.crop_shape == geometry.source_shape and geometry.axis_order == (0, 1, 2):
        return probabilities
    placed = place_in_source(probabilities, geometry)
    if not regions:
        placed[:1] = place_in_source(probabilities[:1], geometry, fill=1)
    return placed


@torch.inference_mode()
def resize_labels(
    slabs: Iterable[Float[Tensor, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
) -> UInt8[np.ndarray, "*source"]:
    """Decide each voxel's label on the network's grid and resize the labels by nearest neighbour.

    Source: the published code of MSVM-UNet, Chen et al. 2024, arXiv:2408.13735: `scipy.ndimage.zoom` of order 0, which
    aligns the middles of the outermost voxels, not the borders. Coarser than `restore`.

    Args:
        slabs: Logits on the network's grid, slab by slab along z.
        geometry: Where the case lies.
        num_outputs: Labels with background, or regions.
        regions_class_order: As for `restore`.

    Raises:
        ScansegError: A logit is not finite.
    """
    parts = []
    for slab in slabs:
        _check_finite(slab)
        parts.append(decide(slab[:num_outputs], regions_class_order).cpu().numpy())
    labels = np.concatenate(parts)
    zoom = [wanted / size for wanted, size in zip(geometry.crop_shape, labels.shape, strict=True)]
    return place_in_source(ndimage.zoom(labels, zoom, order=0), geometry)


def resized_slices(
    slabs: Iterable[Float[Tensor, "output slab y x"]],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    device: torch.device,
    slab_bytes: int,
) -> Iterator[Float32[Tensor, "output y x"]]:
    """Yield the logits resized to the cropped grid, z-slice by z-slice; some slices at a time are resized in-plane.

    Args:
        slabs: As for `restore`, like the others.
        geometry: See there.
        separate_z: See there.
        device: See there.
        slab_bytes: See there.

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
    """Return slices of a slab; number -1 is the last slice of the slab before."""
    inside = slab[:, places[places >= 0].to(slab.device)]
    if carried is None or int(places[0]) >= 0:
        return inside
    return torch.cat((carried, inside), dim=1)


def _z_neighbours(
    size: int, new_size: int, *, nearest: bool
) -> tuple[Int64[Tensor, " new"], Int64[Tensor, " new"], Float32[Tensor, " new"]]:
    """Return, for each new slice, the old slices below and above it and how far it is from the lower one."""
    centres = size / new_size * (torch.arange(new_size, dtype=torch.float64) + 0.5) - 0.5
    if nearest:
        closest = (centres + 0.5).floor().clamp(0, size - 1).long()
        return closest, closest, torch.zeros(new_size)
    centres = centres.clamp(0, size - 1)
    lower = centres.floor().long()
    return lower, (lower + 1).clamp(max=size - 1), (centres - lower).float()


def decide(
    logits: Float[Tensor, "output *spatial"], regions_class_order: Sequence[int] | None
) -> UInt8[Tensor, "*spatial"]:
    """Return the label of each voxel.

    Args:
        logits: Of labels, or of regions.
        regions_class_order: Label that each region writes where it is positive; None: the largest decides.
    """
    if regions_class_order is None:
        # What argmax returns, in less than half of its time on a CPU.
        return logits.max(0).indices.to(torch.uint8)
    labels = torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for value, region in zip(regions_class_order, logits, strict=True):
        labels = labels.masked_fill(region > 0, value)
    return labels


def _check_finite(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise ScansegError(
            "the network's logits are not all finite; predict in float32 (training.precision of the plan), and if "
            "that does not help, the training went wrong"
        )
