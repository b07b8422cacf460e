"""Launching of the mLSTM's Triton kernels: buffers, grids and warps.

This module is imported on first use, because the kernels import Triton.
"""

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.launching import launch
from scanseg.ops._support.triton import INTERPRETED, dot_precision
from scanseg.ops.mlstm.triton_gates import gate_gradients, scan_frames, sum_around_blocks, sum_gates
from scanseg.ops.mlstm.triton_gradients import key_gradients, query_gradients
from scanseg.ops.mlstm.triton_layout import Layout, launch_options, like_tokens, power_of_two
from scanseg.ops.mlstm.triton_outputs import outputs, upstream_gradients
from scanseg.ops.mlstm.triton_states import scan_state_gradients, scan_states, state_updates

SLICE = 512
"""Elements of a state in one program of a scan."""


class Launcher(NamedTuple):
    """Launcher of the kernels of one call.

    Each method launches the kernels of a step and returns their results.
    """

    layout: Layout
    batch: int
    num_heads: int
    token: int
    dim: int
    dtype: torch.dtype
    wide: torch.dtype
    precision: str
    reverse: bool

    @classmethod
    def of(cls, q: Tensor, layout: Layout, *, reverse: bool) -> Self:
        """Create a launcher with the sizes of q."""
        precision = "tf32" if q.dtype == torch.float16 and not INTERPRETED else dot_precision(q)
        batch, head, token, dim = q.shape
        return cls(layout, batch, head, token, dim, q.dtype, state_dtype(q), precision, reverse)

    @property
    def rows(self) -> int:
        """Number of rows, batch * heads."""
        return self.batch * self.num_heads

    @property
    def plane(self) -> int:
        """Elements of a plane, one per token and row, with padding."""
        return self.rows * self.layout.num_chunks * self.layout.padded

    @property
    def slices(self) -> int:
        """Number of parts of a state in the scans."""
        return -(-self.dim * (self.dim + 1) // SLICE)

    def gates(self, igate: Tensor, fgate: Tensor) -> tuple[Tensor, Tensor]:
        """Return the planes and frames of the gates."""
        chunks, padded = self.layout.num_chunks, self.layout.padded
        planes = igate.new_empty((5, self.rows, chunks * padded), dtype=self.wide)
        frames = igate.new_empty((self.rows, chunks), dtype=self.wide)
        launch(sum_gates, (chunks, self.rows))(
            igate,
            fgate,
            planes,
            frames,
            *igate.stride(),
            *fgate.stride(),
            self.token,
            self.num_heads,
            self.plane,
            PADDED=padded,
            REVERSE=self.reverse,
            num_warps=max(1, min(4, padded // 128)),
        )
        if chunks > 1:
            step = power_of_two(chunks, largest=1024)
            launch(scan_frames, (self.rows,))(
                planes, frames, chunks, padded, self.plane, STEP=step, num_warps=max(1, min(4, step // 128))
            )
        return planes, frames

    def outputs(
        self, q: Tensor, k: Tensor, v: Tensor, planes: Tensor, frames: Tensor, states: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return h and the row sums."""
        layout = self.layout
        h, row_sums = like_tokens(q), planes.new_empty((self.rows, self.token))
        launch(outputs, (layout.num_chunks * layout.blocks, layout.parts, self.rows))(
            q,
            k,
            v,
            planes,
            frames,
            *states,
            h,
            row_sums,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            *h.stride()[:3],
            self.token,
            self.num_heads,
            layout.num_chunks,
            layout.padded,
            self.plane,
            layout.blocks,
            **self._block_constants,
            LOG_SCALE=self._log_scale,
            CHUNKED=self._is_chunked,
            **launch_options("outputs", self.layout),
        )
        return h, row_sums

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

        Gradients of gates have the dtype of the state. `kept` are the states of a tiled layout. Other layouts compute
        them again.
        """
        upstream = self._upstream(h, grad_h, row_sums, planes, frames)
        states, grad_states = self.states(k, v, planes, frames), (planes, planes)
        over = planes
        if self._is_chunked:
            grad_states, over = self._state_gradients(q, grad_h, planes, frames, upstream, states)
        pairs = (q, k, v, grad_h, planes, frames, upstream)
        grad_q, by_query, across = self._query_gradients(*pairs, states)
        grad_k, grad_v, by_key, beyond = self._key_gradients(*pairs, grad_states)
        around = self._around(across, beyond, over)
        sums = (planes, frames, upstream, by_query, by_key, around)
        return (grad_q, grad_k, grad_v, *self._gate_gradients(fgate, *sums))

    @property
    def _is_chunked(self) -> bool:
        return self.layout.num_chunks > 1

    @property
    def _log_scale(self) -> float:
        return -0.5 * math.log(self.dim)

    @property
    def _block_constants(self) -> dict[str, Any]:
        """Return the constants of every kernel on blocks of tokens."""
        return {
            "DIM": self.dim,
            "COLS": self.layout.cols,
            "PARTS": self.layout.parts,
            "BLOCK": self.layout.block,
            "REVERSE": self.reverse,
            "PRECISION": self.precision,
        }

    def _updates(
        self, x: Tensor, y: Tensor, planes: Tensor, frames: Tensor, upstream: Tensor | None
    ) -> Tensor:
        """Return the update of the state by each chunk.

        With `upstream`, return the update of the gradient of the state that the chunk reads.
        """
        chunks = self.layout.num_chunks
        updates = planes.new_empty((self.rows, chunks - 1, self.dim * (self.dim + 1)))
        launch(state_updates, (self.layout.parts**2, chunks - 1, self.rows))(
            x,
            y,
            planes,
            frames,
            planes if upstream is None else upstream,
            updates,
            *x.stride()[:3],
            *y.stride()[:3],
            self.token,
            self.num_heads,
            chunks,
            self.plane,
            **self._block_constants,
            PADDED=self.layout.padded,
            ADJOINT=upstream is not None,
            **launch_options("updates", self.layout),
        )
        return updates

    def _empty_states(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.wide if self.dtype == torch.float16 else self.dtype
        shape = (self.rows, self.layout.num_chunks - 1, self.dim)
        return planes.new_empty((*shape, self.dim), dtype=dtype), planes.new_empty(shape)

    def states(self, k: Tensor, v: Tensor, planes: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states at the ends of all chunks except the last.

        They are matrices and normalizers. With one chunk there are none, and kernels read neither.
        """
        if not self._is_chunked:
            return planes, planes
        updates = self._updates(k, v, planes, frames, None)
        states = self._empty_states(planes)
        launch(scan_states, (self.slices, self.rows))(
            updates,
            planes,
            frames,
            *states,
            self.layout.num_chunks,
            self.layout.padded,
            self.plane,
            DIM=self.dim,
            SLICE=SLICE,
            num_warps=4,
        )
        return states

    def _state_gradients(
        self,
        q: Tensor,
        grad_h: Tensor,
        planes: Tensor,
        frames: Tensor,
        upstream: Tensor,
        states: tuple[Tensor, Tensor],
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return the gradients of the states, and sums for the gates.

        The sums are over the pairs of tokens around each chunk.
        """
        updates = self._updates(q, grad_h, planes, frames, upstream)
        grad_states = self._empty_states(planes)
        over = planes.new_empty((self.slices, self.rows, self.layout.num_chunks))
        launch(scan_state_gradients, (self.slices, self.rows))(
            updates,
            planes,
            frames,
            *states,
            *grad_states,
            over,
            self.layout.num_chunks,
            self.layout.padded,
            self.plane,
            DIM=self.dim,
            SLICE=SLICE,
            num_warps=4,
        )
        return grad_states, over

    def _upstream(
        self, h: Tensor, grad_h: Tensor, row_sums: Tensor, planes: Tensor, frames: Tensor
    ) -> Tensor:
        """Return the planes of `upstream_gradients`."""
        layout, upstream = self.layout, planes.new_empty((4, *planes.shape[1:]))
        launch(upstream_gradients, (layout.num_chunks * layout.padded // layout.block, self.rows))(
            h,
            grad_h,
            row_sums,
            planes,
            frames,
            upstream,
            *h.stride()[:3],
            *grad_h.stride()[:3],
            self.token,
            self.num_heads,
            layout.num_chunks,
            layout.padded,
            self.plane,
            DIM=self.dim,
            COLS=layout.cols,
            PARTS=layout.parts,
            BLOCK=layout.block,
            LOG_SCALE=self._log_scale,
            REVERSE=self.reverse,
            num_warps=4,
        )
        return upstream

    def _query_gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        grad_h: Tensor,
        planes: Tensor,
        frames: Tensor,
        upstream: Tensor,
        states: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient of q, and two sums for the gates."""
        layout, grad_q = self.layout, like_tokens(q)
        by_query = planes.new_empty((layout.parts + 1, *planes.shape[1:]))
        num_blocks = layout.num_chunks * layout.blocks
        across = planes.new_empty((layout.parts, self.rows, num_blocks, layout.blocks))
        launch(query_gradients, (num_blocks, layout.parts, self.rows))(
            q,
            k,
            v,
            grad_h,
            planes,
            frames,
            upstream,
            *states,
            grad_q,
            by_query,
            across,
            *self._pair_sizes(q, k, v, grad_h, grad_q),
            **self._block_constants,
            CHUNKED=self._is_chunked,
            **launch_options("queries", self.layout),
        )
        return grad_q, by_query, across

    def _key_gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        grad_h: Tensor,
        planes: Tensor,
        frames: Tensor,
        upstream: Tensor,
        grad_states: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of k and v, and sums for the gates.

        Two sums follow the gradients.
        """
        layout, grad_k, grad_v = self.layout, like_tokens(k), like_tokens(v)
        by_key = planes.new_empty((2 * layout.parts, *planes.shape[1:]))
        num_blocks = layout.num_chunks * layout.blocks
        beyond = planes.new_empty((layout.parts, self.rows, num_blocks))
        launch(key_gradients, (num_blocks, layout.parts, self.rows))(
            q,
            k,
            v,
            grad_h,
            planes,
            frames,
            upstream,
            *grad_states,
            grad_k,
            grad_v,
            by_key,
            beyond,
            *self._pair_sizes(q, k, v, grad_h, grad_k),
            **self._block_constants,
            CHUNKED=self._is_chunked,
            **launch_options("keys", self.layout),
        )
        return grad_k, grad_v, by_key, beyond

    def _pair_sizes(self, *tensors: Tensor) -> tuple[int, ...]:
        """Return the strides and sizes for both kernels on pairs of blocks."""
        layout = self.layout
        strides = (stride for tensor in tensors for stride in tensor.stride()[:3])
        return (
            *strides,
            self.token,
            self.num_heads,
            layout.num_chunks,
            layout.padded,
            self.plane,
            layout.blocks,
        )

    def _around(self, across: Tensor, beyond: Tensor, over: Tensor) -> Tensor:
        """Return the sums over the pairs of tokens around each block."""
        layout, slices = self.layout, self.slices if self._is_chunked else 0
        around = across.new_empty((self.rows, layout.num_chunks * layout.blocks))
        launch(sum_around_blocks, (layout.num_chunks, self.rows))(
            across,
            beyond,
            over,
            around,
            layout.blocks,
            layout.parts,
            slices,
            BLOCKS=power_of_two(layout.blocks, largest=1024),
            SLICES=power_of_two(max(slices, 1), largest=4096),
            num_warps=1,
        )
        return around

    def _gate_gradients(self, fgate: Tensor, *sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the gates."""
        layout, shape = self.layout, (self.batch, self.num_heads, self.token)
        grad_igate, grad_fgate = (fgate.new_empty(shape, dtype=self.wide) for _ in range(2))
        launch(gate_gradients, (self.rows,))(
            *sums,
            fgate,
            grad_igate,
            grad_fgate,
            *fgate.stride(),
            self.token,
            self.num_heads,
            layout.num_chunks,
            layout.padded,
            self.plane,
            layout.blocks,
            layout.parts,
            BLOCK=layout.block,
            STEP=power_of_two(self.token, largest=2048),
            REVERSE=self.reverse,
            num_warps=8,
        )
        return grad_igate, grad_fgate
