"""Launching of the mLSTM's Triton kernels for chunks of one tile.

This module is imported on first use, because the kernels import Triton.
"""

from typing import Any

import torch
from torch import Tensor

from scanseg.ops._support.launching import launch
from scanseg.ops._support.triton import INTERPRETED
from scanseg.ops.mlstm.triton_launch import Launcher
from scanseg.ops.mlstm.triton_layout import like_tokens, power_of_two, tile_options
from scanseg.ops.mlstm.triton_tile_gradients import tile_gate_gradients, tile_gradients, tile_upstream
from scanseg.ops.mlstm.triton_tile_states import tile_decays, tile_state_gradients, tile_states, tile_updates

LARGEST_GROUP = 64
"""Maximum number of chunks whose states are one product."""


class TileLauncher(Launcher):
    """Launcher of the kernels of one call with a tiled layout.

    Each method launches the kernels of a step and returns their results.
    """

    def states(self, k: Tensor, v: Tensor, planes: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states at the ends of all chunks except the last.

        They are matrices, in the dtype of the products, and normalizers.
        """
        updates, states = self._empty_tile_states(planes), self._empty_tile_states(planes)
        launch(tile_updates, (self.layout.num_chunks - 1, self.rows))(
            k,
            v,
            planes,
            frames,
            *updates,
            *k.stride()[:3],
            *v.stride()[:3],
            *self._sizes,
            **self._features,
            **tile_options("updates", self.layout),
        )
        launch(tile_states, (self._slices, self.rows))(
            *updates, *self._decays(planes, frames), *states, *self._groups, **self._scan
        )
        return states

    def gradients(
        self,
        grad_h: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        fgate: Tensor,
        h: Tensor,
        row_sums: Tensor,
        planes: Tensor,
        frames: Tensor,
        kept: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of q, k, v and both gates.

        Gradients of gates have the dtype of the state.
        """
        upstream, updates, sums_m = self._tile_upstream(q, h, grad_h, row_sums, planes, frames)
        grad_states, over = self._tile_state_gradients(updates, sums_m, planes, frames, kept)
        grads = (like_tokens(q), like_tokens(k), like_tokens(v))
        sums = (
            planes.new_empty((2, *planes.shape[1:])),
            planes.new_empty((self.rows, self._num_blocks, self.layout.blocks)),
            planes.new_empty((self.rows, self._num_blocks)),
        )
        strides = (stride for x in (q, k, v, grad_h, grads[0]) for stride in x.stride()[:3])
        launch(tile_gradients, (self._num_blocks, self.rows))(
            q,
            k,
            v,
            grad_h,
            planes,
            frames,
            upstream,
            *kept,
            *grad_states,
            *grads,
            *sums,
            *strides,
            *self._sizes,
            **self._features,
            BLOCK=self.layout.block,
            **tile_options("gradients", self.layout),
        )
        return (*grads, *self._tile_gate_gradients(fgate, planes, frames, upstream, *sums, over, sums_m))

    def _tile_upstream(
        self, q: Tensor, h: Tensor, grad_h: Tensor, row_sums: Tensor, planes: Tensor, frames: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Return upstream planes, updates of states' gradients, and sums of m."""
        chunks, updates = self.layout.num_chunks, self._empty_tile_states(planes)
        upstream, sums_m = planes.new_empty((4, *planes.shape[1:])), planes.new_empty((2, self.rows, chunks))
        launch(tile_upstream, (chunks, self.rows))(
            q,
            h,
            grad_h,
            row_sums,
            planes,
            frames,
            upstream,
            *updates,
            sums_m,
            *q.stride()[:3],
            *h.stride()[:3],
            *grad_h.stride()[:3],
            *self._sizes,
            **self._features,
            LOG_SCALE=self._log_scale,
            **tile_options("upstream", self.layout),
        )
        return upstream, updates, sums_m

    def _tile_state_gradients(
        self,
        updates: tuple[Tensor, Tensor],
        sums_m: Tensor,
        planes: Tensor,
        frames: Tensor,
        states: tuple[Tensor, Tensor],
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return the gradients of the states, and sums for the gates.

        The sums are over the pairs of tokens around each chunk.
        """
        grad_states = self._empty_tile_states(planes)
        over = planes.new_empty((self.rows, self.layout.num_chunks, self._slices))
        launch(tile_state_gradients, (self._slices, self.rows))(
            *updates,
            *self._decays(planes, frames),
            *states,
            *grad_states,
            over,
            sums_m,
            *self._groups,
            **self._scan,
        )
        return grad_states, over

    def _tile_gate_gradients(self, fgate: Tensor, *sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the gates."""
        shape = (self.batch, self.num_heads, self.token)
        grads = fgate.new_empty(shape, dtype=self.wide), fgate.new_empty(shape, dtype=self.wide)
        launch(tile_gate_gradients, (self.layout.num_chunks, self.rows))(
            *sums,
            fgate,
            *grads,
            *fgate.stride(),
            *self._sizes,
            self._slices,
            TILE=self.layout.padded,
            BLOCK=self.layout.block,
            SLICES=power_of_two(self._slices, largest=4096),
            REVERSE=self.reverse,
            num_warps=4,
        )
        return grads

    def _decays(self, planes: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decays inside groups of chunks, and between groups."""
        chunks, groups = self._groups
        shape = (2, self.rows, groups, self._group)
        dtype = torch.bfloat16 if self._is_split else self.wide
        decays, ends = planes.new_empty((*shape, self._group), dtype=dtype), planes.new_empty(shape)
        launch(tile_decays, (groups, self.rows))(
            planes,
            frames,
            decays,
            ends,
            chunks,
            self.plane,
            STEP=self._group,
            TILE=self.layout.padded,
            SPLIT=self._is_split,
            num_warps=4,
        )
        return decays, ends

    def _empty_tile_states(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        shape = (self.rows, self.layout.num_chunks - 1)
        matrices = planes.new_empty((*shape, self.dim**2), dtype=self.dtype)
        return matrices, planes.new_empty((*shape, self.dim))

    @property
    def _num_blocks(self) -> int:
        return self.layout.num_chunks * self.layout.blocks

    @property
    def _group(self) -> int:
        """Chunks of a group."""
        return power_of_two(self.layout.num_chunks - 1, largest=LARGEST_GROUP)

    @property
    def _slice(self) -> int:
        """Elements of a state in one program that passes states on."""
        return 128 if self._group == LARGEST_GROUP else 64

    @property
    def _groups(self) -> tuple[int, int]:
        """Number of chunks and of groups."""
        return self.layout.num_chunks, -(-(self.layout.num_chunks - 1) // self._group)

    @property
    def _is_split(self) -> bool:
        """Whether float32 factors of the states are sums of two bfloat16 numbers."""
        return self.dtype == torch.bfloat16 and not INTERPRETED

    @property
    def _matrix_slices(self) -> int:
        """Number of parts of the matrix of a state."""
        return -(-(self.dim**2) // self._slice)

    @property
    def _slices(self) -> int:
        """Number of parts of a state."""
        return self._matrix_slices + -(-self.dim // self._slice)

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        return self.token, self.num_heads, self.layout.num_chunks, self.plane

    @property
    def _features(self) -> dict[str, Any]:
        """Return the constants of every kernel on tokens."""
        return {
            "DIM": self.dim,
            "COLS": self.layout.cols,
            "TILE": self.layout.padded,
            "REVERSE": self.reverse,
            "PRECISION": self.precision,
        }

    @property
    def _scan(self) -> dict[str, Any]:
        """Return the constants and options of both kernels that pass states on."""
        return {
            "DIM": self.dim,
            "SLICE": self._slice,
            "SLICES": self._matrix_slices,
            "STEP": self._group,
            "SPLIT": self._is_split,
            "PRECISION": self.precision,
            "num_warps": self._slice // 32,
            "num_stages": 1,
        }
