"""Division of a sequence into chunks and blocks, and launch options.

The numbers were chosen by `benchmarks/sweeps/mlstm.py`. Nothing is tuned at run time.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LONGEST_SINGLE_CHUNK = 1024
"""Maximum number of tokens in a single chunk.

A single chunk saves two launches in each direction, but its products grow with the square of the tokens.
"""

TILE = 128
"""Tokens of a chunk in tiled layouts."""

TILED_DIMS = (64, 128)
"""Features of a head in tiled layouts, as in the long sequences of the networks."""


class Layout(NamedTuple):
    """Division of the tokens and features of a call.

    Attributes:
        num_chunks: Number of chunks.
        padded: Tokens of a chunk, rounded up to a power of two if the call has one chunk only.
        block: Tokens of a block, the work of one program.
        blocks: Number of blocks of a chunk with tokens.
        cols: Features of a part, a power of two.
        parts: Number of parts of the features.
        tiled: Whether a program reads all features of a token, and states are kept for the backward pass.
    """

    num_chunks: int
    padded: int
    block: int
    blocks: int
    cols: int
    parts: int
    tiled: bool = False


def lay_out(token: int, dim: int, dtype: torch.dtype) -> Layout:
    """Choose the layout of a call.

    Products of float32 take three times the registers of 16-bit products, so their blocks are smaller. float16 enters
    states as float32. Rows without a multiple of 16 features are loaded one by one, each with its own address. For such
    rows, blocks of 64 in float16 with states give wrong numbers with Triton 3.6 on sm_90 (errors as large as h, or
    addresses out of memory). Blocks of 32 are correct.

    Args:
        token: Number of tokens.
        dim: Features of a head.
        dtype: Dtype of q.
    """
    is_small = dtype.itemsize > 2 or (dim % 16 != 0 and (dim > 32 or dtype == torch.float16))
    largest = 32 if is_small else 128 if dim <= 128 and dtype == torch.bfloat16 else 64
    cols = next((size for size in (16, 32, 64, 128) if size >= dim and size <= largest), largest)
    block = next((size for size in (16, 32) if token <= size), 32 if is_small else 64)
    if token <= LONGEST_SINGLE_CHUNK:
        padded = next(size for size in (16, 32, 64, 128, 256, 512, 1024) if size >= token)
        return Layout(1, padded, block, -(-token // block), cols, -(-dim // cols))
    if dtype == torch.bfloat16 and dim in TILED_DIMS:
        return Layout(-(-token // TILE), TILE, 64, TILE // 64, cols, 1, tiled=True)
    chunk = 128 if dim <= 64 else 256
    return Layout(-(-token // chunk), chunk, block, chunk // block, cols, -(-dim // cols))


def states_shapes(rows: int, dim: int, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of kept matrices and normalizers.

    Args:
        rows: Number of heads of all samples.
        dim: Features of a head.
        layout: Layout of the call.
    """
    lead = (rows, layout.num_chunks - 1) if layout.tiled else (0, 0)
    return (*lead, dim**2), (*lead, dim)


def mlstm_state_bytes(batch: int, head: int, token: int, dim: int) -> int:
    """Count the bytes of states that gradients need.

    They are kept by a pass in bfloat16 on a GPU.

    Args:
        batch: Number of samples.
        head: Number of heads.
        token: Number of tokens.
        dim: Features of a head.

    Example:
        >>> from scanseg.ops import mlstm_state_bytes
        >>> mlstm_state_bytes(1, 4, 1024, 128), mlstm_state_bytes(1, 4, 4096, 128)
        (0, 4126720)
    """
    matrices, normalizers = states_shapes(batch * head, dim, lay_out(token, dim, torch.bfloat16))
    return 2 * math.prod(matrices) + 4 * math.prod(normalizers)


Step = Literal["updates", "outputs", "queries", "keys"]


def launch_options(step: Step, layout: Layout) -> dict[str, int]:
    """Return the launch options of a kernel on blocks of tokens.

    Accumulators of 128 features need the registers of eight warps. So do two accumulators in loops over parts.
    """
    is_large = (layout.cols == 128 and not layout.tiled) or (
        step == "keys" and layout.parts > 1 and layout.block == 64
    )
    return {"num_warps": 8 if is_large else 4, "num_stages": 2}


TileStep = Literal["updates", "upstream", "gradients"]


def tile_options(step: TileStep, layout: Layout) -> dict[str, int]:
    """Return the launch options of a kernel with a tiled layout.

    Eight warps hold the accumulators of 128 features by a whole chunk. `tile_gradients` has smaller ones, and two
    programs of four warps fit on a multiprocessor.
    """
    return {"num_warps": 8 if layout.cols == 128 and step != "gradients" else 4, "num_stages": 1}


def like_tokens(tensor: Tensor) -> Tensor:
    """Allocate a tensor (batch, head, token, dim) with adjacent heads.

    In memory the heads of a token lie side by side.
    """
    batch, head, token, dim = tensor.shape
    return tensor.new_empty((batch, token, head, dim)).transpose(1, 2)


def power_of_two(number: int, *, largest: int) -> int:
    """Round up to a power of two between 16 and `largest`."""
    return min(largest, max(16, 1 << (number - 1).bit_length()))
