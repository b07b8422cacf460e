"""Segment an image by overlapping windows, blended by a Gaussian.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net): the same positions and weights. The blend is a
running weighted mean, so that it is exact where the windows agree, and stays in range in float16.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scanseg.errors import ScansegError
from scanseg.progress import Progress, ProgressListener, ignore_progress

SIGMA_FRACTION = 1 / 8
"""Standard deviation of the Gaussian as a part of the window."""

HOST_FLOAT32_BYTES = 2 << 30
"""Logits above this size are blended in float16 where the device shares or is the host's memory."""

DEVICE_FRACTION = 0.5
"""Part of a GPU's free memory that blended logits may take; larger ones are held as float16 by the host."""

Start = tuple[int, int, int]


def window_starts(
    shape: Sequence[int], *, patch_size: Sequence[int], overlap: float
) -> list[tuple[int, ...]]:
    """Return the first voxel of every window: evenly spread from border to border along each axis.

    Args:
        shape: Voxels of the image along each axis, none fewer than the window's.
        patch_size: Voxels of a window along the same axes.
        overlap: Part of a window, 0 to below 1, that the next one covers again at least; a step is one voxel or more.
    """
    axes = []
    for size, patch in zip(shape, patch_size, strict=True):
        room = size - patch
        num_steps = math.ceil(room / max(1, patch * (1 - overlap)) - 1e-9)
        axes.append([round(room * step / max(num_steps, 1)) for step in range(num_steps + 1)])
    return list(itertools.product(*axes))


def gaussian_weights(patch_size: Sequence[int]) -> Float[Tensor, "*patch"]:
    """Return how much each voxel of a window counts: a Gaussian about its middle, at most 1.

    Args:
        patch_size: Voxels of a window along each axis.
    """
    weights = torch.ones(())
    for size in patch_size:
        offsets = torch.arange(size) - size // 2
        weights = weights[..., None] * torch.exp(-0.5 * (offsets / (size * SIGMA_FRACTION)) ** 2)
    return weights


@torch.inference_mode()
def predict_windows(
    network: Callable[[Tensor], Tensor],
    image: Float[Tensor, "channel z y x"],
    *,
    patch_size: Sequence[int],
    num_outputs: int,
    overlap: float,
    window_batch: int,
    mirror_axes: Sequence[int] = (),
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    listen: ProgressListener = ignore_progress,
) -> Float[Tensor, "output z y x"]:
    """Return the logits of an image.

    Args:
        network: In evaluation mode, on `device`; (batch, channel, *patch) to logits (batch, output, *patch).
        image: The image on the network's grid.
        patch_size: Voxels of a window along z, y, x; along y, x for a network that sees slices. An image smaller
            than that is padded with zeros on both sides.
        num_outputs: Outputs of the network.
        overlap: Part of a window that the next one covers again, 0 to below 1; slices do not overlap.
        window_batch: Windows in one pass of the network.
        mirror_axes: Patch axes; the logits of all combinations of their flips are averaged.
        device: Where the network is.
        autocast_dtype: Type of the network's products; None: float32.
        listen: Told of every batch of windows.

    Returns:
        Logits: float32 on `device` where that fits, else float16 in the host's memory.

    Raises:
        ScansegError: The network returns something of another shape.
    """
    patch = _lift(patch_size)
    padded, inner = _pad(image, patch)
    starts: list[Start] = [
        (z, y, x) for z, y, x in window_starts(padded.shape[1:], patch_size=patch, overlap=overlap)
    ]
    blend = _Blend(padded.shape[1:], patch=patch, num_outputs=num_outputs, device=device)
    padded = padded.to(blend.device)
    flips = _combinations(mirror_axes)
    autocast = _autocast(device, autocast_dtype)
    listen(Progress("windows", 0, len(starts)))
    for first in range(0, len(starts), window_batch):
        chosen = starts[first : first + window_batch]
        windows = torch.stack([padded[(slice(None), *_box(start, patch))] for start in chosen])
        windows = windows.reshape(*windows.shape[:2], *patch_size).to(device)
        with autocast:
            logits = _average_flips(network, windows, flips)
        expected = (len(chosen), num_outputs, *patch_size)
        if logits.shape != expected:
            raise ScansegError(
                f"the network returned logits of shape {tuple(logits.shape)} instead of {expected}; it does not fit "
                "the plan"
            )
        for start, window in zip(chosen, logits.reshape(len(chosen), num_outputs, *patch), strict=True):
            blend.add(window, start)
        listen(Progress("windows", first + len(chosen), len(starts)))
    return blend.mean[(slice(None), *inner)]


class _Blend:
    """The weighted mean of the windows so far."""

    def __init__(self, shape: Sequence[int], *, patch: Start, num_outputs: int, device: torch.device) -> None:
        dtype, self.device = _choose_memory(math.prod(shape) * (num_outputs + 1) * 4, device)
        self.mean = torch.zeros((num_outputs, *shape), dtype=dtype, device=self.device)
        self._total = torch.zeros(tuple(shape), device=self.device)
        self._weights = gaussian_weights(patch).to(self.device)
        self._patch = patch

    def add(self, logits: Float[Tensor, "output z y x"], start: Start) -> None:
        """Blend one window in."""
        box = _box(start, self._patch)
        total, mean = self._total[box], self.mean[(slice(None), *box)]
        total += self._weights
        mean.copy_(torch.lerp(mean.float(), logits.to(self.device, torch.float32), self._weights / total))


def _choose_memory(num_bytes: int, device: torch.device) -> tuple[torch.dtype, torch.device]:
    """Decide where logits that take a number of bytes in float32 are held, and as what."""
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
    image: Float[Tensor, "channel z y x"], patch: Start
) -> tuple[Float[Tensor, "channel z y x"], tuple[slice, ...]]:
    """Pad an image with zeros to the size of a window, and say where the image is in it."""
    margins, inner = [], []
    for size, wanted in zip(image.shape[1:], patch, strict=True):
        missing = max(0, wanted - size)
        margins.append((missing // 2, missing - missing // 2))
        inner.append(slice(missing // 2, missing // 2 + size))
    flat = [margin for pair in reversed(margins) for margin in pair]
    return (F.pad(image, flat) if any(flat) else image), tuple(inner)


def _lift(patch_size: Sequence[int]) -> Start:
    """Return the size of a window along z, y, x; a window of two axes is one slice thick."""
    z, y, x = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    return z, y, x


def _box(start: Start, patch: Start) -> tuple[slice, ...]:
    """Return the voxels of a window."""
    return tuple(slice(first, first + size) for first, size in zip(start, patch, strict=True))


def _combinations(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all sets of one or more axes to flip, as axes of a batch."""
    return [
        tuple(axis + 2 for axis in axes)
        for count in range(1, len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    ]


def _average_flips(
    network: Callable[[Tensor], Tensor],
    windows: Float[Tensor, "batch channel *patch"],
    flips: Sequence[tuple[int, ...]],
) -> Float[Tensor, "batch output *patch"]:
    """Return the mean over flips of the logits of flipped windows, flipped back."""
    total = network(windows).float()
    for axes in flips:
        total = total + network(windows.flip(axes)).float().flip(axes)
    return total / (1 + len(flips))


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the context in which the network runs."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
