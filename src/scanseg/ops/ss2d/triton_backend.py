"""Four-direction scan by Triton, as custom operators.

The scan and its gradient are opaque to `torch.compile` and CUDA graphs. The kernels in `triton_kernels` are imported on
first use. Maps are read and written with channels last, and other layouts are copied. The backward pass keeps the
inputs and the states at the starts of the segments. Sums over segments and blocks of channels are written as parts and
added by PyTorch in a fixed order, so results are bitwise reproducible.

Names: see the package and `triton_kernels`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.eager import short_path
from scanseg.ops._support.launching import launch
from scanseg.ops._support.triton import dot_precision, on_its_device
from scanseg.ops.ss2d import gluon_backend
from scanseg.ops.ss2d.kept_states import SEGMENT, kept_like


class Tile(NamedTuple):
    """Work of one program of a kernel, with one warp.

    Attributes:
        tokens: Tokens of a segment.
        channels: Channels of the program.
    """

    tokens: int
    channels: int


FORWARD = Tile(SEGMENT, 32)
BACKWARD = Tile(32, 16)
JOIN = Tile(32, 32)


def ss2d_scan_triton(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> Tensor:
    """Compute the merged scan, with the arguments of `ss2d_scan`."""
    merged: Tensor = _direct(x, projected, dt_weight, dt_bias, A_log, D_skip)[0]
    return merged


def scan(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    *,
    prepared: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the merged scan, and three tensors that its gradients need.

    The states of the segments, rates and skips, or from `gluon_backend` other states and two empty tensors. `prepared`
    are rates and skips, if they are computed already.
    """
    if gluon_backend.accepts(x, A_log, x.dtype, projected.dtype):
        merged, states = gluon_backend.scan(x, projected, dt_weight, dt_bias, A_log, D_skip)
        return merged, states, merged.new_empty(0), merged.new_empty(0)
    from scanseg.ops.ss2d import triton_kernels

    rates, skips = prepared or _prepare(A_log, D_skip, dtype=state_dtype(x))
    call = _Call.of(x, projected, dt_weight, dt_bias, rates, skips, tokens=FORWARD.tokens)
    merged = _empty_map(call.x, dtype=call.wide)
    states = call.states(call.x, backward=False)
    for column in (0, 1):
        launch(triton_kernels.scan_segments, call.grid(FORWARD.channels))(
            *call.operands,
            call.skips,
            states,
            merged,
            *call.sizes,
            column,
            **call.shared,
            T=FORWARD.tokens,
            BD=FORWARD.channels,
            num_warps=1,
        )
    return merged, states, rates, skips


@torch.library.custom_op("scanseg::ss2d_scan_triton", mutates_args=())
@on_its_device
def _scan(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return scan(x, projected, dt_weight, dt_bias, A_log, D_skip)


@_scan.register_fake
def _(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, dim, height, width = x.shape
    merged = x.new_empty((batch, height, width, dim), dtype=state_dtype(x)).permute(0, 3, 1, 2)
    return merged, *kept_like(x, A_log, x.dtype, projected.dtype)


def packed_gradients(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    states: Tensor,
    rates: Tensor,
    skips: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, `projected` and all parameters.

    The last result holds partial sums (part, number). `unpack_gradients` splits their sum.
    """
    from scanseg.ops.ss2d import triton_kernels

    if gluon_backend.accepts(x, A_log, x.dtype, projected.dtype):
        operands = (grad_merged, x, projected, dt_weight, dt_bias, A_log, D_skip, states)
        return gluon_backend.packed_gradients(*operands)
    call = _Call.of(x, projected, dt_weight, dt_bias, rates, skips, tokens=BACKWARD.tokens)
    batch, dim = x.shape[:2]
    rank, state = dt_weight.shape[2], A_log.shape[2]
    grad = grad_merged.permute(0, 2, 3, 1).contiguous()
    grid = call.grid(BACKWARD.channels)
    segments, blocks, _ = grid
    sums, grad_x = _empty_map(call.x, dtype=call.wide), _empty_map(call.x, dtype=x.dtype)
    grad_projected = call.projected.new_empty((blocks, *call.projected.shape))
    parameters = x.new_empty((batch * segments, 4 * dim * (rank + 1 + state) + dim), dtype=call.wide)
    arriving = call.states(grad, backward=True)
    for column in (0, 1):
        launch(triton_kernels.scan_segments_backward, grid)(
            grad,
            *call.operands,
            call.skips,
            states,
            arriving,
            sums,
            grad_x,
            grad_projected,
            parameters,
            *call.sizes,
            column,
            batch,
            **call.shared,
            CP=_padded(rank + 2 * state),
            T=BACKWARD.tokens,
            BD=BACKWARD.channels,
            OPERAND=triton_kernels.operand(x.dtype, call.wide),
            num_warps=1,
        )
    return (
        grad_x,
        _sum_parts(grad_projected).permute(0, 3, 4, 1, 2).to(projected.dtype),
        parameters,
    )


def unpack_gradients(
    packed: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D_skip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split the sum of the parts of `packed_gradients` into gradients of parameters."""
    _, dim, rank = dt_weight.shape
    state = A_log.shape[2]
    weights, biases, decays, skip = packed.split([4 * dim * rank, 4 * dim, 4 * dim * state, dim])
    return (
        weights.view(4, dim, rank).to(dt_weight.dtype),
        biases.view(4, dim).to(dt_bias.dtype),
        decays.view(4, state, dim).mT.to(A_log.dtype),
        skip.expand(4, -1).to(D_skip.dtype),
    )


def scan_gradients(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    states: Tensor,
    rates: Tensor,
    skips: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs.

    Gradients of parameters are views of one tensor.
    """
    grad_x, grad_projected, parts = packed_gradients(
        grad_merged, x, projected, dt_weight, dt_bias, A_log, D_skip, states, rates, skips
    )
    return grad_x, grad_projected, *unpack_gradients(parts.sum(0), dt_weight, dt_bias, A_log, D_skip)


@torch.library.custom_op("scanseg::ss2d_scan_triton_backward", mutates_args=())
@on_its_device
def _scan_backward(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    states: Tensor,
    rates: Tensor,
    skips: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x, grad_projected, *parameters = scan_gradients(
        grad_merged, x, projected, dt_weight, dt_bias, A_log, D_skip, states, rates, skips
    )
    of_weight, of_bias, of_rates, of_skips = (_copied(gradient) for gradient in parameters)
    return grad_x, grad_projected, of_weight, of_bias, of_rates, of_skips


@_scan_backward.register_fake
def _(
    grad_merged: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    states: Tensor,
    rates: Tensor,
    skips: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, dim, height, width = x.shape
    channels = projected.shape[2]
    return (
        x.new_empty((batch, height, width, dim)).permute(0, 3, 1, 2),
        projected.new_empty((batch, height, width, 4, channels)).permute(0, 3, 4, 1, 2),
        torch.empty_like(dt_weight, memory_format=torch.contiguous_format),
        torch.empty_like(dt_bias, memory_format=torch.contiguous_format),
        torch.empty_like(A_log, memory_format=torch.contiguous_format),
        torch.empty_like(D_skip, memory_format=torch.contiguous_format),
    )


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(ctx: Any, grad_merged: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_merged is None:
        return (None,) * 6
    gradients: tuple[Tensor, ...] = _direct_backward(grad_merged, *ctx.saved_tensors)
    return gradients


_scan.register_autograd(_differentiate, setup_context=_save)
_direct = short_path(_scan, _save, _differentiate)
_direct_backward = short_path(_scan_backward, body=on_its_device(scan_gradients))


class _Call(NamedTuple):
    """Arguments of a call in the layout of the kernels.

    Maps are channels-last, and parameters have the dtype of the state.
    """

    x: Tensor
    projected: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    rates: Tensor
    skips: Tensor
    wide: torch.dtype
    segments: int
    shared: dict[str, Any]
    """The compile-time constants of all kernels."""

    @classmethod
    def of(
        cls,
        x: Tensor,
        projected: Tensor,
        dt_weight: Tensor,
        dt_bias: Tensor,
        rates: Tensor,
        skips: Tensor,
        *,
        tokens: int,
    ) -> "_Call":
        """Create the arguments for segments of `tokens` tokens."""
        wide = state_dtype(x)
        return cls(
            x.permute(0, 2, 3, 1).contiguous(),
            projected.permute(0, 3, 4, 1, 2).contiguous(),
            dt_weight.to(wide).contiguous(),
            dt_bias.to(wide).contiguous(),
            rates,
            skips,
            wide,
            -(-x.shape[2] * x.shape[3] // tokens),
            {
                "R": dt_weight.shape[2],
                "RP": _padded(dt_weight.shape[2] + 1),
                "N": rates.shape[1],
                "PRECISION": dot_precision(x),
            },
        )

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """Inputs of every kernel."""
        return (self.x, self.projected, self.dt_weight, self.dt_bias, self.rates)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of tokens, rows, columns, channels and segments."""
        _, height, width, dim = self.x.shape
        return (height * width, height, width, dim, self.segments)

    def grid(self, channels: int) -> tuple[int, int, int]:
        """Return the grid of one pair of directions, for `channels` per program."""
        batch, _, _, dim = self.x.shape
        return (self.segments, -(-dim // channels), batch)

    def states(self, values: Tensor, *, backward: bool) -> Tensor:
        """Return the states at the starts of the segments.

        Backward, return the gradients of the states at the ends of the segments.
        """
        from scanseg.ops.ss2d import triton_kernels

        batch, _, _, dim = self.x.shape
        state = self.rates.shape[1]
        shape = (batch, 4, self.segments, state, dim)
        products, states = (self.x.new_empty(shape, dtype=self.wide) for _ in range(2))
        if self.segments > 1:
            segments, blocks, _ = self.grid(FORWARD.channels)
            launch(triton_kernels.measure_segments, (segments, blocks, 2 * batch))(
                values,
                *self.operands[1:],
                products,
                states,
                *self.sizes,
                **self.shared,
                T=FORWARD.tokens,
                BD=FORWARD.channels,
                BACKWARD=backward,
                num_warps=1,
            )
            launch(triton_kernels.join_segments, (-(-state * dim // JOIN.channels), 4 * batch))(
                products,
                states,
                state * dim,
                self.segments,
                T=JOIN.tokens,
                BD=JOIN.channels,
                BACKWARD=backward,
                num_warps=1,
            )
        return states


def _prepare(A_log: Tensor, D_skip: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute A (4, N, dim) and the sum of all D (dim)."""
    from scanseg.ops.ss2d import triton_kernels

    _, dim, state = A_log.shape
    rates, skips = A_log.new_empty((4, state, dim), dtype=dtype), A_log.new_empty((dim,), dtype=dtype)
    launch(triton_kernels.prepare_parameters, (-(-dim // 32),))(
        A_log.to(dtype).contiguous(),
        D_skip.to(dtype).contiguous(),
        rates,
        skips,
        dim,
        N=state,
        BD=32,
        num_warps=1,
    )
    return rates, skips


def _padded(columns: int) -> int:
    """Round the columns of a product up to a power of two.

    The result is at least 16.
    """
    return max(16, 1 << (columns - 1).bit_length())


def _empty_map(channels_last: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Allocate a map (batch, dim, height, width) in channels-last memory.

    `channels_last` is a map (batch, height, width, dim) of the same size.
    """
    return torch.empty_like(channels_last, dtype=dtype).permute(0, 3, 1, 2)


def _copied(view: Tensor) -> Tensor:
    """Copy a view to its own memory, for results of custom operators."""
    return view.clone(memory_format=torch.contiguous_format)


def _sum_parts(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)
