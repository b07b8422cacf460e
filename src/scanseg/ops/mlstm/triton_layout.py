"""How the Triton kernels of the mLSTM cut a sequence, and how they are launched: the table that a sweep fills.

Chosen by `benchmarks/sweeps/mlstm.py`; nothing is tuned when a program runs.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

LONGEST_SINGLE_CHUNK = 1024
"""Tokens; the products inside grow with the square, but two kernels less are launched each way."""


class Layout(NamedTuple):
    """How the tokens of a call are cut.

    Attributes:
        num_chunks: Chunks.
        padded: Tokens of a chunk, rounded up to a power of two where there is one chunk only.
        block: Tokens of a block, which one program works on.
        blocks: Blocks of a chunk that hold tokens.
        cols: Features of a part, a power of two.
        parts: Parts that make up the features.
    """

    num_chunks: int
    padded: int
    block: int
    blocks: int
    cols: int
    parts: int


def lay_out(token: int, dim: int, dtype: torch.dtype) -> Layout:
    """Choose the layout for a number of tokens, a head size and the dtype of q.

    Products of float32 take three times the registers of 16-bit ones: their blocks are smaller. float16 goes into
    states as float32. Rows that are no multiple of 16 features are loaded one by one, each with an address of its own.
    Of those, blocks of 64 in float16 beside states give wrong numbers as Triton 3.6 compiles them for sm_90 (h off by
    as much as h, or addresses out of memory); blocks of 32 are right.
    """
    is_small = dtype.itemsize > 2 or (dim % 16 != 0 and (dim > 32 or dtype == torch.float16))
    largest = 32 if is_small else 128 if dim <= 128 and dtype == torch.bfloat16 else 64
    cols = next((size for size in (16, 32, 64, 128) if size >= dim and size <= largest), largest)
    block = next((size for size in (16, 32) if token <= size), 32 if is_small else 64)
    if token <= LONGEST_SINGLE_CHUNK:
        padded = next(size for size in (16, 32, 64, 128, 256, 512, 1024) if size >= token)
        return Layout(1, padded, block, -(-token // block), cols, -(-dim // cols))
    chunk = 128 if dim <= 64 else 256
    return Layout(-(-token // chunk), chunk, block, chunk // block, cols, -(-dim // cols))


Step = Literal["updates", "outputs", "queries", "keys"]


def launch_options(step: Step, layout: Layout) -> dict[str, int]:
    """Return how the kernel of a step on blocks of tokens is launched.

    Accumulators of 128 features need the registers of eight warps; so do two of them beside loops over parts.
    """
    is_large = layout.cols == 128 or (step == "keys" and layout.parts > 1 and layout.block == 64)
    return {"num_warps": 8 if is_large else 4, "num_stages": 2}


def like_tokens(tensor: Tensor) -> Tensor:
    """Return an empty tensor (batch, head, token, dim) whose heads lie side by side in memory, token by token."""
    batch, head, token, dim = tensor.shape
    return tensor.new_empty((batch, token, head, dim)).transpose(1, 2)


def power_of_two(number: int, *, largest: int) -> int:
    """Return the next power of two, at least 16 and at most `largest`."""
    return min(largest, max(16, 1 << (number - 1).bit_length()))
