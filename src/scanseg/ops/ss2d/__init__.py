"""Selective scan of an image in four directions, merged to a sum.

Directions k: 0 reads by rows (row-major), 1 by columns (column-major), 2 and 3 are 0 and 1 from the end. For each
direction, with (dt_low, B, C) the R + 2N channels of `projected`[:, k]:

    delta = softplus(dt_weight[k] dt_low + dt_bias[k]),    A = -exp(A_log[k])
    y[k]  = selective scan of x in the order of k,          result = sum_k (y[k] in raster order)

Source: Liu et al. 2024 (VMamba), arXiv:2401.10166, section 4.2 (SS2D). The input projection acts on each pixel
separately, so it is applied once to the map instead of to four permuted copies.

Names, as in the paper: N state size, R rank of the step size, A, B, C, D as in `selective_scan`.
"""

from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.cpu import MISSING, refuses
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.ss2d.numba_backend import ss2d_scan_compiled_cpu
from scanseg.ops.ss2d.plain_backend import ss2d_scan_plain
from scanseg.ops.ss2d.pytorch_backend import ss2d_scan_chunked
from scanseg.ops.ss2d.reference import ss2d_scan_reference
from scanseg.ops.ss2d.triton_backend import ss2d_scan_triton

__all__ = ["BACKENDS", "ss2d_scan"]

BACKENDS = {
    "triton": as_triton_backend(ss2d_scan_triton),
    "compiled_cpu": Backend(ss2d_scan_compiled_cpu, refuses, MISSING, custom=True),
    "chunked": Backend(ss2d_scan_chunked, custom=True),
    "plain": Backend(ss2d_scan_plain),
    "reference": Backend(ss2d_scan_reference),
}


def ss2d_scan(
    x: Float[Tensor, "batch dim height width"],
    projected: Float[Tensor, "batch 4 rank_2state height width"],
    *,
    dt_weight: Float[Tensor, "4 dim rank"],
    dt_bias: Float[Tensor, "4 dim"],
    A_log: Float[Tensor, "4 dim state"],
    D_skip: Float[Tensor, "4 dim"],
    backend: str | None = None,
) -> Float[Tensor, "batch dim height width"]:
    """Scan a map in four directions and sum the results.

    Args:
        x: The map.
        projected: Pointwise projection of the map for each direction, with channels dt_low (R), B (N), C (N).
        dt_weight: Expansion of dt_low to the step sizes.
        dt_bias: Bias of the step sizes, before softplus.
        A_log: Logarithm of the negated decay rates.
        D_skip: Skip of each direction. Their sum multiplies x once.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        The merged sum, in float64 if `x` is float64, else float32.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import ss2d_scan
        >>> dim, rank, state = 4, 1, 2
        >>> y = ss2d_scan(
        ...     torch.randn(1, dim, 5, 6),
        ...     torch.randn(1, 4, rank + 2 * state, 5, 6),
        ...     dt_weight=torch.randn(4, dim, rank),
        ...     dt_bias=torch.zeros(4, dim),
        ...     A_log=torch.zeros(4, dim, state),
        ...     D_skip=torch.ones(4, dim),
        ... )
        >>> y.shape, y.dtype
        (torch.Size([1, 4, 5, 6]), torch.float32)
    """
    require_axes("ss2d_scan", "x", x, "batch dim height width")
    require_axes("ss2d_scan", "dt_weight", dt_weight, "4 dim rank")
    require_axes("ss2d_scan", "A_log", A_log, "4 dim state")
    batch, dim, height, width = x.shape
    rank, state = dt_weight.shape[2], A_log.shape[2]
    require_shapes(
        "ss2d_scan",
        Expected("x", x, "batch, dim, height, width", (batch, dim, height, width)),
        Expected(
            "projected",
            projected,
            "batch, 4, R + 2N, height, width",
            (batch, 4, rank + 2 * state, height, width),
        ),
        Expected("dt_weight", dt_weight, "4, dim, R", (4, dim, rank)),
        Expected("dt_bias", dt_bias, "4, dim", (4, dim)),
        Expected("A_log", A_log, "4, dim, N", (4, dim, state)),
        Expected("D_skip", D_skip, "4, dim", (4, dim)),
    )
    chosen = choose("ss2d_scan", BACKENDS, backend, x, projected, dt_weight, dt_bias, A_log, D_skip)
    return chosen.run(x, projected, dt_weight, dt_bias, A_log, D_skip)
