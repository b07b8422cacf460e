"""Launching of the kernels of Dice and cross-entropy: tiles, chunks and constants."""

from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.launching import launch
from scanseg.ops.segmentation_sums.triton_kernels import (
    NUM_SUMS,
    combine_kernel,
    gradient_kernel,
    sums_kernel,
)


class Tile(NamedTuple):
    """Logits of a tile, and warps of its program."""

    elements: int
    num_warps: int


SUM = Tile(1024, 4)
GRADIENT = Tile(1024, 4)
COMBINE = Tile(4096, 4)
NUM_PROGRAMS = 1056
"""Target number of programs of the sums: eight for each multiprocessor of an H100. Results depend on it."""


class Form(NamedTuple):
    """Compile-time description of the sums (see `triton_kernels`)."""

    codes: tuple[int, ...] | None
    weights: tuple[float, ...] | None
    regions: bool
    ignore_label: int | None
    squared: bool

    def constants(self, logits: Tensor, *, channels_last: bool) -> dict[str, object]:
        """Return the constants of the kernels that read the logits."""
        num_outputs = logits.shape[1]
        return {
            "NUM_OUTPUTS": num_outputs,
            "NUM_WORDS": len(self.codes) // num_outputs if self.regions and self.codes is not None else 0,
            "CODES": self.codes,
            "WEIGHTS": self.weights,
            "REGIONS": self.regions,
            "IGNORE_LABEL": self.ignore_label,
            "SQUARED": self.squared,
            "CHANNELS_LAST": channels_last,
        }


def tile_options(tile: Tile, num_outputs: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the constants of a tile with all outputs of its voxels."""
    outputs = 1 << (num_outputs - 1).bit_length()
    return {
        "BLOCK_V": max(tile.elements // outputs, 1),
        "BLOCK_C": outputs,
        "ACCUMULATE": tl.float64 if dtype == torch.float64 else tl.float32,
        "num_warps": tile.num_warps,
    }


def write_sums(
    logits: Tensor,
    label_map: Tensor,
    form: Form,
    results: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    first_output: int,
    channels_last: bool,
) -> None:
    """Write the sums of `segmentation_sums` to `results`.

    The logits are dense, with outputs last in memory if `channels_last`.
    """
    num_samples, num_outputs = logits.shape[:2]
    num_voxels = label_map[0].numel()
    options = tile_options(SUM, num_outputs, logits.dtype)
    tiles = -(-num_voxels // options["BLOCK_V"])
    tiles_per_chunk = -(-tiles // (max(1, NUM_PROGRAMS // num_samples)))
    num_chunks = -(-tiles // tiles_per_chunk)
    partial = logits.new_empty(
        (NUM_SUMS.value, num_samples, num_chunks, num_outputs), dtype=state_dtype(logits)
    )
    launch(sums_kernel, (num_chunks, num_samples))(
        logits,
        label_map,
        partial,
        num_voxels,
        tiles_per_chunk,
        **form.constants(logits, channels_last=channels_last),
        **options,
    )
    rows, lines = results[0].shape[0], num_samples * num_chunks
    options = tile_options(COMBINE, num_outputs, logits.dtype)
    options["BLOCK_K"] = options.pop("BLOCK_V")
    launch(combine_kernel, (NUM_SUMS.value, rows))(
        partial, *results, lines // rows, lines, FIRST_OUTPUT=first_output, NUM_OUTPUTS=num_outputs, **options
    )


def gradient(
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
    logits: Tensor,
    label_map: Tensor,
    form: Form,
    *,
    over_batch: bool,
    first_output: int,
    channels_last: bool,
) -> Tensor:
    """Return the gradient of the logits.

    Args:
        gradients: Gradients of overlap, predicted and cross_entropy. The first two are both given or both `None`.
        logits: The logits, dense in the memory format of `channels_last`.
        label_map: The label values, contiguous.
        form: Description of the sums.
        over_batch: See `segmentation_sums`.
        first_output: See `segmentation_sums`.
        channels_last: Whether outputs come last in memory.
    """
    grad_logits = torch.empty_like(logits)
    of_overlap, of_predicted, of_cross_entropy = (
        logits if tensor is None else tensor.contiguous() for tensor in gradients
    )
    num_voxels = label_map[0].numel()
    options = tile_options(GRADIENT, logits.shape[1], logits.dtype)
    launch(gradient_kernel, (-(-num_voxels // options["BLOCK_V"]), logits.shape[0]))(
        of_overlap,
        of_predicted,
        of_cross_entropy,
        logits,
        label_map,
        grad_logits,
        num_voxels,
        OF_DICE=gradients[0] is not None,
        OF_CROSS_ENTROPY=gradients[2] is not None,
        OVER_BATCH=over_batch,
        FIRST_OUTPUT=first_output,
        **form.constants(logits, channels_last=channels_last),
        **options,
    )
    return grad_logits
