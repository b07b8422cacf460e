"""Sliding window: overlapping windows, blended by a Gaussian.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net): the same positions and weights. The blend is a
running weighted mean. So it is exact where the windows agree, and stays in range in float16.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.errors import ScansegError
from scanseg.inference.uncertainty import Network, logits_and_disagreement, mean_logits
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress

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


def gaussian_weights(patch_size: Sequence[int]) -> Float[Tensor, "*patch"]:
    """Return the weight of each voxel of a window, at most 1.

    The weights are a Gaussian around the centre.

    Args:
        patch_size: Voxels of a window along each axis.
    """
    weights = torch.ones(())
    for size in patch_size:
        offsets = torch.arange(size) - size // 2
        weights = weights[..., None] * torch.exp(-0.5 * (offsets / (size * SIGMA_FRACTION)) ** 2)
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
    autocast_dtype: torch.dtype | None = None
    """Type of the networks' products. `None`: float32."""
    disagreement: bool = False
    """Add the disagreement of flips and networks as last channel, see `scanseg.inference.uncertainty`."""
    regions: bool = False
    """The outputs are regions. Only the disagreement depends on it."""
    background_value: tuple[float, ...] = ()
    """Intensity of each channel outside the image, as in training. Further channels have 0."""

    @property
    def num_channels(self) -> int:
        """Channels of the result: outputs, and the disagreement if it is computed."""
        return self.num_outputs + self.disagreement


@torch.inference_mode()
def predict_slabs(
    networks: Sequence[Network],
    image: Float[Tensor, "channel z y x"],
    sliding_window: SlidingWindow,
    *,
    device: torch.device,
    progress: ProgressCallback = ignore_progress,
) -> Iterator[Float[Tensor, "output slab y x"]]:
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
    blend = _Blend(padded.shape[1:], patch=patch, num_outputs=sliding_window.num_channels, device=device)
    padded = padded.to(blend.device)
    autocast = _autocast(device, sliding_window.autocast_dtype)
    progress(ProgressUpdate("windows", 0, len(starts)))
    for first in range(0, len(starts), batch):
        chosen = starts[first : first + batch]
        windows = torch.stack([padded[(slice(None), *_box(start, patch))] for start in chosen])
        with autocast:
            logits = _run(
                networks,
                windows.reshape(*windows.shape[:2], *sliding_window.patch_size).to(device),
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
    networks: Sequence[Network], windows: Float[Tensor, "batch channel *patch"], sliding_window: SlidingWindow
) -> Float[Tensor, "batch output *patch"]:
    """Return the logits of a batch of windows, with disagreement if wanted.

    Raises:
        ScansegError: The logits have another shape.
    """
    flips = _combinations(sliding_window.mirror_axes)
    if sliding_window.disagreement:
        logits = logits_and_disagreement(networks, windows, flips=flips, regions=sliding_window.regions)
    else:
        logits = mean_logits(networks, windows, flips=flips)
    expected = (len(windows), sliding_window.num_channels, *sliding_window.patch_size)
    if logits.shape != expected:
        raise ScansegError(
            f"network: expected logits of shape {expected} by the plan, got {tuple(logits.shape)}. Use the plan of the "
            "network."
        )
    return logits


class _Blend:
    """Running weighted mean of windows, for some slices at a time."""

    def __init__(self, shape: Sequence[int], *, patch: Start, num_outputs: int, device: torch.device) -> None:
        slice_bytes = math.prod(shape[1:]) * (num_outputs + 1) * 4
        depth = min(shape[0], max(patch[0], SLAB_BYTES // slice_bytes))
        dtype, self.device = _choose_memory(depth * slice_bytes, device)
        self._mean = torch.zeros((num_outputs, depth, *shape[1:]), dtype=dtype, device=self.device)
        self._total = torch.zeros((depth, *shape[1:]), device=self.device)
        self._weights = gaussian_weights(patch).to(self.device)
        self._patch = patch
        self._first = 0
        """Number of the first slice in memory."""

    def reaches(self, start: Start) -> bool:
        """Return whether a window lies in the slices in memory.

        Args:
            start: First voxel of the window.
        """
        return start[0] + self._patch[0] <= self._first + self._mean.shape[1]

    def add(self, logits: Float[Tensor, "output z y x"], start: Start) -> None:
        """Add one window to the mean.

        Args:
            logits: Logits of the window.
            start: First voxel of the window.
        """
        z, y, x = start
        box = _box((z - self._first, y, x), self._patch)
        total, mean = self._total[box], self._mean[(slice(None), *box)]
        total += self._weights
        mean.copy_(torch.lerp(mean.float(), logits.to(self.device, torch.float32), self._weights / total))

    def before(self, until: int, *, inner: Sequence[slice]) -> Float[Tensor, "output slab y x"]:
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
        for held in (self._mean.transpose(0, 1), self._total):
            held[:kept] = held[count:] if kept <= count else held[count:].clone()
            held[kept:] = 0
        self._first = first


def _choose_memory(num_bytes: int, device: torch.device) -> tuple[torch.dtype, torch.device]:
    """Choose dtype and device of a slab of logits.

    Args:
        num_bytes: Size of the slab in float32.
        device: Device of the networks.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return (
            (torch.float32, device)
            if num_bytes <= DEVICE_FRACTION * free
            else (torch.float16, torch.device("cpu"))
        )
    if num_bytes <= HOST_FLOAT32_BYTES:
        return torch.float32, device
    return torch.float16, torch.device("cpu")


def _pad(
    image: Float[Tensor, "channel z y x"], patch: Start, *, background_value: Sequence[float]
) -> tuple[Float[Tensor, "channel z y x"], tuple[slice, ...]]:
    """Pad an image to the size of a window.

    Returns:
        Padded image, with the background value of each channel, and the box of the image in it.
    """
    sizes = [max(size, wanted) for size, wanted in zip(image.shape[1:], patch, strict=True)]
    margins = [(padded - size) // 2 for size, padded in zip(image.shape[1:], sizes, strict=True)]
    z, y, x = (slice(margin, margin + size) for margin, size in zip(margins, image.shape[1:], strict=True))
    if tuple(sizes) == image.shape[1:]:
        return image, (z, y, x)
    result = image.new_zeros((len(image), *sizes))
    result[: len(background_value)] = image.new_tensor(background_value)[:, None, None, None]
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


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the autocast context of a dtype."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
