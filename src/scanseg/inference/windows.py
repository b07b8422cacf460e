"""Sliding window: overlapping windows, blended by a Gaussian.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net): the same positions and weights. The blend is a
running weighted mean. So it is exact where the windows agree, and stays in range in float16.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float

from scanseg.errors import ScansegError
from scanseg.inference.arrays import Array, Arrays, Device, Network, arrays_of, arrays_on, without_gradients
from scanseg.inference.uncertainty import logits_and_disagreement, mean_logits
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress

if TYPE_CHECKING:
    import torch

SIGMA_FRACTION = 1 / 8
"""Standard deviation of the Gaussian as a fraction of the window size."""

SLAB_BYTES = 512 << 20
"""Bytes of blended logits held at a time. A thicker window needs more."""

HOST_FLOAT32_BYTES = 1 << 30
"""Size of slabs in bytes above which logits are blended in float16 in the host's memory."""

DEVICE_FRACTION = 0.5
"""Fraction of a GPU's free memory for a slab of logits. The host holds larger slabs as float16."""

Start = tuple[int, int, int]
"""First voxel of a window along z, y, x."""


def window_starts(
    shape: Sequence[int], *, patch_size: Sequence[int], overlap: float
) -> list[tuple[int, ...]]:
    """Return the first voxel of every window.

    Windows are spread evenly from border to border along each axis.

    Args:
        shape: Voxels of the image along each axis, at least those of a window.
        patch_size: Voxels of a window along the same axes.
        overlap: Fraction of a window that the next one covers again at least, from 0 to below 1. A step is at least one
            voxel.
    """
    axes = []
    for size, patch in zip(shape, patch_size, strict=True):
        room = size - patch
        num_steps = math.ceil(room / max(1, patch * (1 - overlap)) - 1e-9)
        size_of_step = room / max(num_steps, 1)
        # The order of the operations is that of nnU-Net, since it decides the rounding of half voxels.
        axes.append([round(size_of_step * step) for step in range(num_steps + 1)])
    return list(itertools.product(*axes))


def gaussian_weights(patch_size: Sequence[int], arrays: Arrays) -> Float[Array, "*patch"]:
    """Return the weight of each voxel of a window, at most 1.

    The weights are a Gaussian around the centre.

    Args:
        patch_size: Voxels of a window along each axis.
        arrays: Library of the weights.
    """
    weights = arrays.of(1.0)
    for size in patch_size:
        offsets = arrays.of([place - size // 2 for place in range(size)])
        weights = weights[..., None] * arrays.exp(-0.5 * (offsets / (size * SIGMA_FRACTION)) ** 2)
    return weights


@dataclass(frozen=True)
class SlidingWindow:
    """Settings of the division into windows and of their passes."""

    patch_size: tuple[int, ...]
    """Voxels of a window along z, y, x, or along y, x for 2D networks. A smaller image is padded on both sides."""
    num_outputs: int
    """Number of outputs of the networks."""
    overlap: float = 0.5
    """Fraction of a window that the next one covers again, from 0 to below 1. Slices do not overlap along z."""
    window_batch: int = 1
    """Number of windows in one pass of a network."""
    mirror_axes: tuple[int, ...] = ()
    """Patch axes of mirroring. The logits of all combinations of their flips are averaged."""
    autocast_dtype: "torch.dtype | None" = None
    """Type of the networks' products. `None`: float32."""
    disagreement: bool = False
    """Add the disagreement of flips and networks as last channel, see `scanseg.inference.uncertainty`."""
    regions: bool = False
    """The outputs are regions. Only the disagreement depends on it."""
    temperatures: tuple[float, ...] | None = None
    """Temperature of each output. Only the disagreement depends on it. `None`: all are 1."""
    background_value: tuple[float, ...] = ()
    """Intensity of each channel outside the image, as in training. Further channels have 0."""

    @property
    def num_channels(self) -> int:
        """Channels of the result: outputs, and the disagreement if it is computed."""
        return self.num_outputs + self.disagreement


@without_gradients
def predict_slabs(
    networks: Sequence[Network],
    image: Float[Array, "channel z y x"],
    sliding_window: SlidingWindow,
    *,
    device: Device,
    progress: ProgressCallback = ignore_progress,
) -> Iterator[Float[Array, "output slab y x"]]:
    """Yield the logits of an image slab by slab along z.

    A slab is yielded once all of its windows are computed. The logits held at a time are as thick as a window, or as
    `SLAB_BYTES` allow, for any size of the image.

    Args:
        networks: Networks in evaluation mode on `device`, from windows (batch, channel, *patch) to logits
            (batch, output, *patch). Logits of several networks are averaged.
        image: Image on the networks' grid.
        sliding_window: Division into windows.
        device: Device of the networks.
        progress: Called after every batch of windows.

    Yields:
        Logits: float32 on `device` if a slab fits, else float16 in the host's memory. The next slab overwrites it.

    Raises:
        ScansegError: A network returns logits of another shape.
    """
    patch, batch = _lift(sliding_window.patch_size), sliding_window.window_batch
    padded, inner = _pad(image, patch, background_value=sliding_window.background_value)
    starts: list[Start] = [
        (z, y, x)
        for z, y, x in window_starts(padded.shape[1:], patch_size=patch, overlap=sliding_window.overlap)
    ]
    arrays = arrays_on(device)
    blend = _Blend(padded.shape[1:], patch=patch, num_outputs=sliding_window.num_channels, arrays=arrays)
    padded = blend.arrays.place(padded)
    autocast = arrays.autocast(sliding_window.autocast_dtype)
    progress(ProgressUpdate("windows", 0, len(starts)))
    for first in range(0, len(starts), batch):
        chosen = starts[first : first + batch]
        windows = arrays.stack([padded[(slice(None), *_box(start, patch))] for start in chosen])
        with autocast:
            logits = _run(
                networks,
                arrays.place(windows.reshape(*windows.shape[:2], *sliding_window.patch_size)),
                sliding_window,
            )
        for start, window in zip(
            chosen, logits.reshape(len(chosen), sliding_window.num_channels, *patch), strict=True
        ):
            if not blend.reaches(start):
                yield blend.before(start[0], inner=inner)
                blend.move_to(start[0])
            blend.add(window, start)
        progress(ProgressUpdate("windows", first + len(chosen), len(starts)))
    yield blend.before(padded.shape[1], inner=inner)


def _run(
    networks: Sequence[Network], windows: Float[Array, "batch channel *patch"], sliding_window: SlidingWindow
) -> Float[Array, "batch output *patch"]:
    """Return the logits of a batch of windows, with disagreement if wanted.

    Raises:
        ScansegError: The logits have another shape.
    """
    flips = _combinations(sliding_window.mirror_axes)
    if sliding_window.disagreement:
        logits = logits_and_disagreement(
            networks,
            windows,
            flips=flips,
            regions=sliding_window.regions,
            temperatures=sliding_window.temperatures,
        )
    else:
        logits = mean_logits(networks, windows, flips=flips)
    expected = (len(windows), sliding_window.num_channels, *sliding_window.patch_size)
    if tuple(logits.shape) != expected:
        raise ScansegError(
            f"network: expected logits of shape {expected} by the plan, got {tuple(logits.shape)}. Use the plan of the "
            "network."
        )
    return logits


class _Blend:
    """Running weighted mean of windows, for some slices at a time."""

    def __init__(self, shape: Sequence[int], *, patch: Start, num_outputs: int, arrays: Arrays) -> None:
        slice_bytes = math.prod(shape[1:]) * (num_outputs + 1) * 4
        depth = min(shape[0], max(patch[0], SLAB_BYTES // slice_bytes))
        half = _exceeds_memory(depth * slice_bytes, arrays)
        self.arrays = arrays.on_host() if half else arrays
        self._mean = self.arrays.zeros((num_outputs, depth, *shape[1:]), half=half)
        self._total = self.arrays.zeros((depth, *shape[1:]))
        self._weights = self.arrays.place(gaussian_weights(patch, arrays.on_host()))
        self._patch = patch
        self._first = 0
        """Number of the first slice in memory."""

    def reaches(self, start: Start) -> bool:
        """Return whether a window lies in the slices in memory.

        Args:
            start: First voxel of the window.
        """
        return start[0] + self._patch[0] <= self._first + self._mean.shape[1]

    def add(self, logits: Float[Array, "output z y x"], start: Start) -> None:
        """Add one window to the mean.

        Args:
            logits: Logits of the window.
            start: First voxel of the window.
        """
        z, y, x = start
        box = _box((z - self._first, y, x), self._patch)
        arrays, total, mean = self.arrays, self._total[box], self._mean[(slice(None), *box)]
        total += self._weights
        mean[...] = arrays.lerp(
            arrays.single(mean), arrays.single(arrays.place(logits)), self._weights / total
        )

    def before(self, until: int, *, inner: Sequence[slice]) -> Float[Array, "output slab y x"]:
        """Return the slices in memory before a slice, without padding.

        Args:
            until: Number of the slice.
            inner: Box of the image in the padded image.
        """
        z, y, x = inner
        low = max(0, z.start - self._first)
        high = max(low, min(until, z.stop) - self._first)
        return self._mean[:, low:high, y, x]

    def move_to(self, first: int) -> None:
        """Replace the first slices by new empty ones at the end.

        Args:
            first: Number of the first slice that stays in memory.
        """
        count = first - self._first
        kept = self._total.shape[0] - count
        for held in (self._mean.swapaxes(0, 1), self._total):
            held[:kept] = held[count:] if kept <= count else self.arrays.copy(held[count:])
            held[kept:] = 0
        self._first = first


def _exceeds_memory(num_bytes: int, arrays: Arrays) -> bool:
    """Return whether a slab of logits is held as float16 in the host's memory.

    Args:
        num_bytes: Size of the slab in float32.
        arrays: Arrays on the device of the networks.
    """
    free = arrays.gpu_memory()
    return num_bytes > (HOST_FLOAT32_BYTES if free is None else DEVICE_FRACTION * free)


def _pad(
    image: Float[Array, "channel z y x"], patch: Start, *, background_value: Sequence[float]
) -> tuple[Float[Array, "channel z y x"], tuple[slice, ...]]:
    """Pad an image to the size of a window.

    Returns:
        Padded image, with the background value of each channel, and the box of the image in it.
    """
    sizes = [max(size, wanted) for size, wanted in zip(image.shape[1:], patch, strict=True)]
    margins = [(padded - size) // 2 for size, padded in zip(image.shape[1:], sizes, strict=True)]
    z, y, x = (slice(margin, margin + size) for margin, size in zip(margins, image.shape[1:], strict=True))
    if tuple(sizes) == tuple(image.shape[1:]):
        return image, (z, y, x)
    arrays = arrays_of(image)
    result = arrays.zeros((len(image), *sizes))
    result[: len(background_value)] = arrays.of(background_value)[:, None, None, None]
    result[:, z, y, x] = image
    return result, (z, y, x)


def _lift(patch_size: Sequence[int]) -> Start:
    """Return the size of a window along z, y, x.

    A 2D window is one slice thick.
    """
    z, y, x = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    return z, y, x


def _box(start: Start, patch: Start) -> tuple[slice, ...]:
    """Return the box of a window."""
    return tuple(slice(first, first + size) for first, size in zip(start, patch, strict=True))


def _combinations(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all sets of one or more batch axes to flip."""
    return [
        tuple(axis + 2 for axis in axes)
        for count in range(1, len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    ]
