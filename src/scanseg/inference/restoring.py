"""Bring logits on the network's grid back to the source's grid, as label map or probabilities.

Logits are resized slab by slab along z and reduced to labels at once, so that those at the source's size are never
held whole.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int64, UInt8
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from scanseg.data import place_in_source
from scanseg.errors import ScansegError
from scanseg.specs import CaseGeometry

SLAB_BYTES = 128 << 20
"""Bytes of the logits that are resized at a time."""


@torch.inference_mode()
def restore_label_map(
    logits: Float[Tensor, "output z y x"],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    regions_class_order: Sequence[int] | None,
    device: torch.device,
    slab_bytes: int = SLAB_BYTES,
) -> UInt8[np.ndarray, "*source"]:
    """Resize logits linearly and decide each voxel's label.

    Args:
        logits: Logits on the network's grid; output i is label i, or region i.
        geometry: Where the case lies.
        separate_z: Take the nearest slice along z, as preprocessing did (`scanseg.data.separates_z`).
        regions_class_order: Label that each region writes where its logit is positive, later ones over earlier ones;
            None: the label with the largest logit.
        device: Where to compute.
        slab_bytes: Bytes of resized logits at a time; one slice at least.

    Returns:
        Label map on the source's grid; background where cropping cut away.

    Raises:
        ScansegError: A logit is not finite.
    """
    labels = np.empty(geometry.crop_shape, dtype=np.uint8)
    slices = _resized_slices(logits, geometry, separate_z=separate_z, device=device, slab_bytes=slab_bytes)
    for row, values in enumerate(slices):
        labels[row] = _decide(values, regions_class_order).cpu().numpy()
    return place_in_source(labels, geometry)


@torch.inference_mode()
def restore_probabilities(
    logits: Float[Tensor, "output z y x"],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    regions: bool,
    device: torch.device,
    slab_bytes: int = SLAB_BYTES,
) -> Float16[np.ndarray, "output *source"]:
    """Resize logits linearly and turn them into probabilities.

    Args:
        logits: Logits on the network's grid.
        geometry: Where the case lies.
        separate_z: Take the nearest slice along z, as preprocessing did.
        regions: Each output by itself (sigmoid); else all sum to 1 (softmax) and output 0 is background.
        device: Where to compute.
        slab_bytes: Bytes of resized logits at a time; one slice at least.

    Returns:
        Probabilities on the source's grid; certain background where cropping cut away.

    Raises:
        ScansegError: A logit is not finite.
    """
    probabilities = np.empty((len(logits), *geometry.crop_shape), dtype=np.float16)
    slices = _resized_slices(logits, geometry, separate_z=separate_z, device=device, slab_bytes=slab_bytes)
    for row, values in enumerate(slices):
        probabilities[:, row] = (values.sigmoid() if regions else values.softmax(0)).half().cpu().numpy()
    placed = place_in_source(probabilities, geometry)
    if not regions:
        placed[:1] = place_in_source(probabilities[:1], geometry, fill=1)
    return placed


@torch.inference_mode()
def resize_labels(
    logits: Float[Tensor, "output z y x"],
    geometry: CaseGeometry,
    *,
    regions_class_order: Sequence[int] | None,
) -> UInt8[np.ndarray, "*source"]:
    """Decide each voxel's label on the network's grid and resize the labels by nearest neighbour.

    Source: the published code of MSVM-UNet, Chen et al. 2024, arXiv:2408.13735: `scipy.ndimage.zoom` of order 0, which
    aligns the middles of the outermost voxels, not the borders. Coarser than `restore_label_map`.

    Args:
        logits: Logits on the network's grid.
        geometry: Where the case lies.
        regions_class_order: As for `restore_label_map`.

    Raises:
        ScansegError: A logit is not finite.
    """
    _check_finite(logits)
    labels = _decide(logits, regions_class_order).cpu().numpy()
    zoom = [wanted / size for wanted, size in zip(geometry.crop_shape, labels.shape, strict=True)]
    return place_in_source(ndimage.zoom(labels, zoom, order=0), geometry)


def _resized_slices(
    logits: Float[Tensor, "output z y x"],
    geometry: CaseGeometry,
    *,
    separate_z: bool,
    device: torch.device,
    slab_bytes: int,
) -> Iterator[Float32[Tensor, "output y x"]]:
    """Yield the logits resized to the cropped grid, z-slice by z-slice; some slices at a time are resized in-plane."""
    num_slices, *plane = geometry.crop_shape
    lower, upper, fraction = _z_neighbours(logits.shape[1], num_slices, nearest=separate_z)
    num_rows = max(1, slab_bytes // (2 * 4 * len(logits) * plane[0] * plane[1]))
    for start in range(0, num_slices, num_rows):
        rows = slice(start, start + num_rows)
        needed, places = torch.cat((lower[rows], upper[rows])).unique(return_inverse=True)
        slices = logits[:, needed.to(logits.device)].to(device, torch.float32)
        _check_finite(slices)
        if slices.shape[2:] != tuple(plane):
            slices = F.interpolate(slices, size=tuple(plane), mode="bilinear", align_corners=False)
        below, above = (part.tolist() for part in places.chunk(2))
        for first, second, weight in zip(below, above, fraction[rows].tolist(), strict=True):
            yield torch.lerp(slices[:, first], slices[:, second], weight) if weight else slices[:, first]


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


def _decide(
    logits: Float[Tensor, "output *spatial"], regions_class_order: Sequence[int] | None
) -> UInt8[Tensor, "*spatial"]:
    """Return the label of each voxel."""
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
