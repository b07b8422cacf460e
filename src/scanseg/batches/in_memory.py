"""Training cases in the memory of device or host, and their patches.

All cases are concatenated in one tensor of images and one of labels. So index arithmetic gathers the patches of a whole
batch for any shapes of the cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanseg.batches.box_reading import locate_voxels
from scanseg.batches.reading import Layout, gather, interpolate
from scanseg.preprocessing import Store
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of cases that contain the patches of a batch."""

    cases: np.ndarray
    """Index of the case of each box, (batch,)."""
    low: np.ndarray
    """First voxel along z, y, x, (batch, 3)."""
    high: np.ndarray
    """First voxel after the box along z, y, x, (batch, 3)."""


@dataclass(frozen=True, eq=False)
class InMemoryCases:
    """Cases in memory.

    Axes are z, y, x. Outside a case the label is 0 and the intensity is `background_value`.
    """

    names: tuple[str, ...]
    """Names of the cases."""
    images: Float[Tensor, "channel voxel"]
    """Intensities of all cases, float16."""
    label_maps: Int[Tensor, " voxel"]
    """Labels of all cases, uint8. With packed labels of a first stage int16."""
    shapes_host: np.ndarray
    """Voxels of each case along z, y, x, (case, 3)."""
    background_value: Float[Tensor, " channel"]
    """Intensity of each channel outside a case."""
    locations: tuple[dict[str, np.ndarray], ...]
    """Flat indices of some voxels per label name, for each case. Absent labels have no entry."""
    annotated: tuple[np.ndarray, ...] | None
    """Flat indices of some annotated voxels of each case. `None`: no ignore label exists."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.images.device

    @cached_property
    def starts(self) -> np.ndarray:
        """Flat index of the first voxel of each case, (case,)."""
        return np.concatenate([[0], np.cumsum(self.shapes_host.prod(axis=1))[:-1]])

    def cut(self, boxes: Boxes, *, device: torch.device) -> "InMemoryCases":
        """Return boxes as cases of their own on another device.

        Args:
            boxes: Boxes inside the cases.
            device: Device of the result.
        """
        images, label_maps = [], []
        for case, low, high in zip(
            boxes.cases.tolist(), boxes.low.tolist(), boxes.high.tolist(), strict=True
        ):
            shape, start = self.shapes_host[case].tolist(), int(self.starts[case])
            voxels = slice(start, start + int(np.prod(shape)))
            box = tuple(map(slice, low, high))
            images.append(self.images[:, voxels].unflatten(1, shape)[:, *box].flatten(1))
            label_maps.append(self.label_maps[voxels].unflatten(0, shape)[box].flatten())
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
            corners: First voxel of each patch along z, y, x, (batch, 3). It may lie outside the case.
            size: Voxels of a patch along z, y, x.

        Returns:
            Images (float32) and label maps of the patches.
        """
        return gather(self.images, self.label_maps, self._layout(cases), corners=corners, size=size)

    def interpolate(
        self, cases: np.ndarray, coordinates: Float[Tensor, "batch 3 z y x"], *, in_plane: bool
    ) -> tuple[Float[Tensor, "batch channel z y x"], Int[Tensor, "batch z y x"]]:
        """Interpolate cases at any positions.

        Images are interpolated linearly, label maps by nearest neighbour.

        Args:
            cases: Index of the case of each patch, (batch,).
            coordinates: Position of each voxel of a patch in its case, in voxels along z, y, x.
            in_plane: The z coordinates are integers, so neighbours along z are not read.

        Returns:
            Images (float32) and label maps of the patches.
        """
        layout = self._layout(cases)
        return interpolate(self.images, self.label_maps, layout, coordinates=coordinates, in_plane=in_plane)

    def _layout(self, cases: np.ndarray) -> Layout:
        """Return the layout of the cases of patches."""
        return Layout(self.starts[cases], self.shapes_host[cases], self.background_value)


def join_boxes(
    images: Float[Tensor, "channel voxel"],
    label_maps: Int[Tensor, " voxel"],
    *,
    shapes: np.ndarray,
    background_value: Float[Tensor, " channel"],
    device: torch.device,
) -> InMemoryCases:
    """Return concatenated boxes as cases, without locations for sampling.

    Args:
        images: Intensities of all boxes.
        label_maps: Labels of all boxes.
        shapes: Voxels of each box along z, y, x, (box, 3).
        background_value: Intensity of each channel outside a case.
        device: Device of the result.
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
    """Return the memory of cases in bytes.

    Images are float16. Label maps are uint8, or int16 with packed labels of a first stage.

    Args:
        store: Store of the cases.
        cases: Names of the cases.
    """
    channels = store.index.preprocessing.num_channels
    voxels = sum(int(np.prod(store.case(name).geometry.shape)) for name in cases)
    return voxels * (2 * channels + (1 if store.index.first_stage is None else 2))


def load_into_memory(store: Store, cases: Sequence[str], *, seed: int, context: RunContext) -> InMemoryCases:
    """Read cases of a store into memory.

    Args:
        store: Store of the cases.
        cases: Names of the cases, at least one.
        seed: Seed of the choice of voxels that are kept of large structures.
        context: Device and progress.
    """
    if not cases:
        raise ValueError("cases: expected at least one, got none")
    shapes = np.array([store.case(name).geometry.shape for name in cases], dtype=np.int64)
    sizes = shapes.prod(axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    images = torch.empty(
        (store.index.preprocessing.num_channels, int(sizes.sum())),
        dtype=torch.float16,
        device=context.torch_device,
    )
    packed = store.index.first_stage is not None
    label_maps = torch.empty(
        int(sizes.sum()), dtype=torch.int16 if packed else torch.uint8, device=context.torch_device
    )
    dataset = store.index.dataset
    locations, annotated = [], []
    for number, name in enumerate(cases):
        voxels = slice(int(starts[number]), int(starts[number] + sizes[number]))
        stored = store.case(name)
        label_map = store.read_label_map(stored)
        images[:, voxels] = torch.from_numpy(store.read_image(stored)).flatten(1).to(context.torch_device)
        label_maps[voxels] = torch.from_numpy(label_map).flatten().to(context.torch_device)
        rng = np.random.default_rng([seed, number])
        of_labels, of_annotation = locate_voxels(label_map.astype(np.uint8), dataset, rng=rng)
        locations.append(of_labels)
        if of_annotation is not None:
            annotated.append(of_annotation)
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
