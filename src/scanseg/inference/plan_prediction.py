"""Average what networks of different plans say of a case: their probabilities, on the grid of the source.

Plans differ in spacing, cropping and windows, so that only the source's grid is common to them. Every plan's logits
come slab by slab, are resized, and become probabilities slice by slice; the slices of all plans meet one by one, so
that the probabilities are never held whole.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net): the mean of the softmax of two configurations.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from scanseg.inference.resample import SLAB_BYTES, Restored, decide, resized_slices
from scanseg.inference.uncertainty import entropy as entropy_of
from scanseg.inference.uncertainty import to_probabilities
from scanseg.preprocessing import permute, place_in_source
from scanseg.progress import ProgressCallback, ProgressUpdate
from scanseg.specs import CaseGeometry


@dataclass(frozen=True, eq=False)
class PlanPrediction:
    """What the networks of one plan say of a case."""

    slabs: Iterable[Float[Tensor, "output slab y x"]]
    """Logits on the networks' grid, slab by slab along z; a channel behind them is the disagreement of members."""
    geometry: CaseGeometry
    """Where that grid lies."""
    separate_z: bool
    """The nearest slice along z is taken, as in preprocessing (`scanseg.preprocessing.separates_z`)."""
    num_channels: int
    """Channels of the slabs: outputs, and disagreement where there is one."""


@torch.inference_mode()
def restore_mean(
    views: Sequence[PlanPrediction],
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
    device: torch.device,
    probabilities: bool = False,
    uncertainty: bool = False,
    slab_bytes: int = SLAB_BYTES,
) -> Restored:
    """Decide each voxel's label by the mean of the views' probabilities, and return what else is wanted.

    Disagreement is H(p) - mean_k max(0, H(p_k) - d_k), with p_k and d_k the probabilities and the disagreement of view
    k and p the mean: what the views owe to each other, and what the members of each do, as in
    `scanseg.inference.uncertainty`; each view counts the same, however many networks it has.

    Args:
        views: Of one case, at least one.
        num_outputs: Labels with background, or regions.
        regions_class_order: Label that each region writes where its probability is above one half, later ones over
            earlier ones; None: the label with the largest probability.
        device: Where to compute.
        probabilities: Return the mean probabilities too.
        uncertainty: Return their entropy and the disagreement too.
        slab_bytes: Bytes of the views' resized logits at a time; one slice of each at least.

    Raises:
        ScansegError: A logit is not finite.
    """
    regions, geometry = regions_class_order is not None, _uncropped(views[0].geometry)
    shape = geometry.crop_shape
    labels = np.empty(shape, dtype=np.uint8)
    whole = np.empty((num_outputs, *shape), dtype=np.float16) if probabilities else None
    doubts, disputes = (np.empty(shape, dtype=np.float16) if uncertainty else None for _ in range(2))
    slices = _meeting_slices(
        views, num_outputs=num_outputs, regions=regions, device=device, slab_bytes=slab_bytes
    )
    for row, parts in enumerate(slices):
        mean = _mean([part[:num_outputs] for part in parts])
        labels[row] = _decide(mean, regions_class_order).cpu().numpy()
        if whole is not None:
            whole[:, row] = mean.half().cpu().numpy()
        if doubts is not None and disputes is not None:
            doubt = entropy_of(mean, regions=regions)
            own = _mean([_own_entropy(part, num_outputs=num_outputs, regions=regions) for part in parts])
            doubts[row] = doubt.half().cpu().numpy()
            disputes[row] = (doubt - own).clamp(0, 1).half().cpu().numpy()
    return Restored(
        label_map=place_in_source(labels, geometry),
        probabilities=None if whole is None else place_in_source(whole, geometry),
        entropy=None if doubts is None else place_in_source(doubts, geometry),
        disagreement=None if disputes is None else place_in_source(disputes, geometry),
    )


@torch.inference_mode()
def label_maps_of_groups(
    views: Sequence[PlanPrediction],
    groups: Sequence[Sequence[int]],
    *,
    num_outputs: int,
    regions_class_order: Sequence[int] | None,
    device: torch.device,
    slab_bytes: int = SLAB_BYTES,
) -> list[UInt8[np.ndarray, "*source"]]:
    """Return, for each group of views, the label map that `restore_mean` makes of it; views are computed once.

    Args:
        views: Of one case.
        groups: Numbers of views.
        num_outputs: As for `restore_mean`, like the others.
        regions_class_order: See there.
        device: See there.
        slab_bytes: See there.

    Raises:
        ScansegError: A logit is not finite.
    """
    geometry = _uncropped(views[0].geometry)
    found = [np.empty(geometry.crop_shape, dtype=np.uint8) for _ in groups]
    slices = _meeting_slices(
        views,
        num_outputs=num_outputs,
        regions=regions_class_order is not None,
        device=device,
        slab_bytes=slab_bytes,
    )
    for row, parts in enumerate(slices):
        for labels, group in zip(found, groups, strict=True):
            mean = _mean([parts[number][:num_outputs] for number in group])
            labels[row] = _decide(mean, regions_class_order).cpu().numpy()
    return [place_in_source(labels, geometry) for labels in found]


def share_progress(progress: ProgressCallback, count: int) -> list[ProgressCallback]:
    """Return listeners for views that are computed at the same time, whose windows are told of as one sum.

    Args:
        progress: Told of the sum.
        count: Number of views.
    """
    heard: list[ProgressUpdate | None] = [None] * count

    def listener(number: int) -> ProgressCallback:
        def hear(update: ProgressUpdate) -> None:
            heard[number] = update
            parts = [part for part in heard if part is not None]
            done, total = sum(part.done for part in parts), sum(part.total for part in parts)
            progress(replace(update, done=done, total=total))

        return hear

    return [listener(number) for number in range(count)]


@torch.inference_mode()
def _meeting_slices(
    views: Sequence[PlanPrediction], *, num_outputs: int, regions: bool, device: torch.device, slab_bytes: int
) -> Iterator[list[Float32[Tensor, "channel y x"]]]:
    """Yield slices of the source, along the first view's z: each view's probabilities, disagreement behind them."""
    first, slab_bytes = views[0].geometry, slab_bytes // len(views)
    streams = []
    for view in views:
        stream = _placed_slices(
            view, num_outputs=num_outputs, regions=regions, device=device, slab_bytes=slab_bytes
        )
        if view.geometry.axis_order != first.axis_order:
            stream = _turned_slices(stream, view, like=first, device=device)
        streams.append(stream)
    for parts in zip(*streams, strict=True):
        yield list(parts)


@torch.inference_mode()
def _placed_slices(
    view: PlanPrediction, *, num_outputs: int, regions: bool, device: torch.device, slab_bytes: int
) -> Iterator[Float32[Tensor, "channel y x"]]:
    """Yield every slice of the source along a view's z; what cropping cut away is background for certain."""
    geometry = view.geometry
    depth, height, width = _uncropped(geometry).crop_shape
    (start, top, left), (count, rows, columns) = geometry.crop_start, geometry.crop_shape
    padding = (left, width - left - columns, top, height - top - rows)
    outside = torch.zeros((view.num_channels, height, width), device=device)
    outside[0] = 0 if regions else 1
    logits = resized_slices(
        view.slabs, geometry, separate_z=view.separate_z, device=device, slab_bytes=slab_bytes
    )
    for _ in range(start):
        yield outside
    for values in logits:
        likely = to_probabilities(values[:num_outputs], regions=regions)
        placed = F.pad(torch.cat((likely, values[num_outputs:])), padding)
        if any(padding) and not regions:
            placed[0] += 1 - F.pad(torch.ones((rows, columns), device=device), padding)
        yield placed
    for _ in range(depth - start - count):
        yield outside


@torch.inference_mode()
def _turned_slices(
    slices: Iterable[Float32[Tensor, "channel y x"]],
    view: PlanPrediction,
    *,
    like: CaseGeometry,
    device: torch.device,
) -> Iterator[Float32[Tensor, "channel y x"]]:
    """Yield a case's slices along the z of another axis order; until then they lie in a file, as float16."""
    depth, height, width = _uncropped(view.geometry).crop_shape
    with tempfile.TemporaryFile() as file:
        held = np.memmap(file, dtype=np.float16, mode="w+", shape=(view.num_channels, depth, height, width))
        for row, values in enumerate(slices):
            held[:, row] = values.half().cpu().numpy()
        turned = permute(permute(held, _inverse(view.geometry.axis_order)), like.axis_order)
        for row in range(turned.shape[1]):
            yield torch.from_numpy(np.ascontiguousarray(turned[:, row])).to(device, torch.float32)


def _own_entropy(
    part: Float32[Tensor, "channel y x"], *, num_outputs: int, regions: bool
) -> Float32[Tensor, "y x"]:
    """Return the mean entropy of a view's members: that of its probabilities, less their disagreement.

    Not below 0: probabilities of mean logits can be surer than the mean of the members' probabilities.
    """
    own = entropy_of(part[:num_outputs], regions=regions)
    return (own - part[num_outputs]).clamp(min=0) if len(part) > num_outputs else own


def _mean(parts: Sequence[Float32[Tensor, "*shape"]]) -> Float32[Tensor, "*shape"]:
    """Return the mean of tensors, without a stack of them."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)


def _decide(
    probabilities: Float32[Tensor, "output y x"], regions_class_order: Sequence[int] | None
) -> UInt8[Tensor, "y x"]:
    """Return the label of each voxel."""
    if regions_class_order is None:
        return decide(probabilities, None)
    return decide(probabilities - 0.5, regions_class_order)


def _uncropped(geometry: CaseGeometry) -> CaseGeometry:
    """Return the geometry of the whole source with its axes permuted."""
    lifted = (1,) * (3 - geometry.num_axes) + geometry.source_shape
    z, y, x = (lifted[axis] for axis in geometry.axis_order)
    return geometry.model_copy(update={"crop_start": (0, 0, 0), "crop_shape": (z, y, x)})


def _inverse(axis_order: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the order of axes that undoes another."""
    z, y, x = (axis_order.index(axis) for axis in range(3))
    return z, y, x
