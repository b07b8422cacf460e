"""Training cases held in memory, on the device where the network is, and patches gathered from them.

All cases lie one behind the other in one tensor of images and one of labels, so that the patches of a whole
batch are gathered by index arithmetic, whatever the cases' shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.batches.reading import Layout, gather, interpolate
from scanseg.preprocessing import Store
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec

_MAX_LOCATIONS = 10_000
"""Voxels remembered of each label of a case; as many as nnU-Net keeps."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The parts of cases that the patches of a batch need."""

    cases: np.ndarray
    """Index of each box's case, (batch,)."""
    low: np.ndarray
    """First voxel along z, y, x, (batch, 3)."""
    high: np.ndarray
    """Voxel behind the last, (batch, 3)."""


@dataclass(frozen=True, eq=False)
class InMemoryCases:
    """Cases in memory. Axes are z, y, x; outside a case the label is 0 and the intensity that of background_value."""

    names: tuple[str, ...]
    images: Float[Tensor, "channel voxel"]
    """float16 values of all cases."""
    label_maps: Int[Tensor, " voxel"]
    """uint8 values of all cases; int16 where a first stage's prediction is packed into them."""
    shapes_host: np.ndarray
    """Voxels of each case along z, y, x, (case, 3)."""
    background_value: Float[Tensor, " channel"]
    """Intensity of each channel outside a case."""
    locations: tuple[dict[str, np.ndarray], ...]
    """For each case, label name to flat indices of some of its voxels; only labels that occur."""
    annotated: tuple[np.ndarray, ...] | None
    """For each case, flat indices of some voxels that are not ignored; None: there is no ignore label."""

    @property
    def device(self) -> torch.device:
        """Where the cases are."""
        return self.images.device

    @cached_property
    def starts(self) -> np.ndarray:
        """Index of each case's first voxel, (case,)."""
        return np.concatenate([[0], np.cumsum(self.shapes_host.prod(axis=1))[:-1]])

    def cut(self, boxes: Boxes, *, device: torch.device) -> "InMemoryCases":
        """Return boxes as if each were a case, on another device.

        Args:
            boxes: Parts of the cases, inside them.
            device: Where they are wanted.
        """
        images, label_maps = [], []
        for case, low, high in zip(
            boxes.cases.tolist(), boxes.low.tolist(), boxes.high.tolist(), strict=True
        ):
            shape, start = self.shapes_host[case].tolist(), int(self.starts[case])
            here = slice(start, start + int(np.prod(shape)))
            box = tuple(map(slice, low, high))
            images.append(self.images[:, here].unflatten(1, shape)[:, *box].flatten(1))
            label_maps.append(self.label_maps[here].unflatten(0, shape)[box].flatten())
        return join_boxes(
            torch.cat(images, dim=1),
            torch.cat(label_maps),
            shapes=boxes.high - boxes.low,
            background_value=self.background_value,
            device=device,
        )

    def gather(
        self, cases: np.ndarray, corners: np.ndarray, size: Sequence[int]
    ) -> tuple[Float[Tensor, "batch channel z y x"], Int[Tensor, "batch z y x"]]:
        """Cut patches out of cases.

        Args:
            cases: Index of the case of each patch, (batch,).
            corners: First voxel of each patch, (batch, 3); may lie outside the case.
            size: Voxels of a patch along z, y, x.

        Returns:
            Images (float32) and label maps of the patches.
        """
        return gather(self.images, self.label_maps, self._layout(cases), corners=corners, size=size)

    def interpolate(
        self, cases: np.ndarray, coordinates: Float[Tensor, "batch 3 z y x"], *, in_plane: bool
    ) -> tuple[Float[Tensor, "batch channel z y x"], Int[Tensor, "batch z y x"]]:
        """Read cases between voxels: images linearly, label maps at the nearest voxel.

        Args:
            cases: Index of the case of each patch, (batch,).
            coordinates: Position of each voxel of a patch in its case, in voxels along z, y, x.
            in_plane: The z coordinates are whole numbers, so that neighbours along z need not be read.

        Returns:
            Images (float32) and label maps of the patches.
        """
        layout = self._layout(cases)
        return interpolate(self.images, self.label_maps, layout, coordinates=coordinates, in_plane=in_plane)

    def _layout(self, cases: np.ndarray) -> Layout:
        return Layout(self.starts[cases], self.shapes_host[cases], self.background_value)


def join_boxes(
    images: Float[Tensor, "channel voxel"],
    label_maps: Int[Tensor, " voxel"],
    *,
    shapes: np.ndarray,
    background_value: Float[Tensor, " channel"],
    device: torch.device,
) -> InMemoryCases:
    """Make cases, without places to draw patches from, of boxes that lie one behind the other.

    Args:
        images: Their intensities.
        label_maps: Their labels.
        shapes: Voxels of each along z, y, x, (box, 3).
        background_value: Intensity of each channel outside.
        device: Where they are wanted.
    """
    return InMemoryCases(
        names=tuple(str(number) for number in range(len(shapes))),
        images=images.to(device),
        label_maps=label_maps.to(device),
        shapes_host=shapes,
        background_value=background_value.to(device),
        locations=(),
        annotated=None,
    )


def case_bytes(store: Store, cases: Sequence[str]) -> int:
    """Say how much memory cases will take: float16 images and uint8 label maps."""
    channels = store.index.dataset.num_channels
    voxels = sum(int(np.prod(store.case(name).geometry.shape)) for name in cases)
    return voxels * (2 * channels + (1 if store.index.first_stage is None else 2))


def load_into_memory(store: Store, cases: Sequence[str], *, seed: int, context: RunContext) -> InMemoryCases:
    """Read cases of a store into memory.

    Args:
        store: The store.
        cases: Names of the cases; at least one.
        seed: Decides which foreground voxels of large structures are remembered.
        context: Device and progress.
    """
    if not cases:
        raise ValueError("no cases to hold")
    shapes = np.array([store.case(name).geometry.shape for name in cases], dtype=np.int64)
    sizes = shapes.prod(axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    images = torch.empty(
        (store.index.dataset.num_channels, int(sizes.sum())), dtype=torch.float16, device=context.torch_device
    )
    packed = store.index.first_stage is not None
    label_maps = torch.empty(
        int(sizes.sum()), dtype=torch.int16 if packed else torch.uint8, device=context.torch_device
    )
    dataset = store.index.dataset
    locations, annotated = [], []
    for number, name in enumerate(cases):
        here = slice(int(starts[number]), int(starts[number] + sizes[number]))
        stored = store.case(name)
        label_map = store.read_label_map(stored)
        images[:, here] = torch.from_numpy(store.read_image(stored)).flatten(1).to(context.torch_device)
        label_maps[here] = torch.from_numpy(label_map).flatten().to(context.torch_device)
        rng = np.random.default_rng([seed, number])
        where, known = locate_voxels(label_map.astype(np.uint8), dataset, rng=rng)
        locations.append(where)
        if known is not None:
            annotated.append(known)
        context.progress(ProgressUpdate("loading", number + 1, len(cases), name))
    return InMemoryCases(
        names=tuple(cases),
        images=images,
        label_maps=label_maps,
        shapes_host=shapes,
        background_value=torch.tensor(
            store.index.preprocessing.background_value, device=context.torch_device
        ),
        locations=tuple(locations),
        annotated=None if dataset.ignore_label is None else tuple(annotated),
    )


def locate_voxels(
    label_map: np.ndarray, dataset: DatasetSpec, *, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Find voxels of a case around which patches may be cut.

    Args:
        label_map: The case's label map.
        dataset: Its labels.
        rng: Chooses where there are too many to remember.

    Returns:
        Label to flat indices of some of its voxels; and indices of some voxels that are not to be ignored, None where
        there is no ignore label.
    """
    locations = _locate(label_map, dataset.foreground, rng=rng)
    if dataset.ignore_label is None:
        return locations, None
    return locations, _some(np.flatnonzero(label_map != dataset.ignore_label), rng=rng)


def _locate(
    label_map: np.ndarray, labels: Mapping[str, tuple[int, ...]], *, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return flat indices of at most `_MAX_LOCATIONS` voxels of each label that occurs."""
    found = {}
    for name, values in labels.items():
        where = _some(np.flatnonzero(np.isin(label_map, values)), rng=rng)
        if len(where):
            found[name] = where
    return found


def _some(indices: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return at most `_MAX_LOCATIONS` of some indices."""
    if len(indices) <= _MAX_LOCATIONS:
        return indices
    return rng.choice(indices, _MAX_LOCATIONS, replace=False)
