"""SS2D with its residual sum and norm, as one operator.

    total = x + added,    u = norm(total),    h = SiLU(depthwise(in_weight u))
    y = ss2d_scan(h, x_weight h),             branch = out_weight norm(y)

Source: Liu et al. 2024 (VMamba), arXiv:2401.10166, as in MSVM-UNet, arXiv:2408.13735. Small maps take less time on the
GPU than their launches take on the host. One operator instead of its nine parts has fewer of them.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.accepted_calls import recall, remember, signature_of
from scanseg.ops._support.branch import BranchStart
from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.ss2d_branch.reference import ss2d_branch_composed
from scanseg.ops.ss2d_branch.triton_backend import refuses, ss2d_branch_triton

__all__ = ["BACKENDS", "ss2d_branch"]

# These backends take a `BranchStart`, and return two tensors.
BACKENDS = {
    "triton": as_triton_backend(ss2d_branch_triton)._replace(refuses=refuses),  # type: ignore[arg-type]
    "composed": Backend(ss2d_branch_composed),  # type: ignore[arg-type]
}


def ss2d_branch(
    start: BranchStart,
    in_weight: Float[Tensor, "dim dim"],
    *,
    conv_weight: Float[Tensor, "dim 1 size size"],
    x_weight: Float[Tensor, "4 rank_2state dim"],
    dt_weight: Float[Tensor, "4 dim rank"],
    dt_bias: Float[Tensor, "4 dim"],
    A_log: Float[Tensor, "4 dim state"],
    D_skip: Float[Tensor, "4 dim"],
    norm_weight: Float[Tensor, " dim"],
    norm_bias: Float[Tensor, " dim"],
    out_weight: Float[Tensor, "dim dim"],
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch dim height width"], Float[Tensor, "batch dim height width"]]:
    """Mix the pixels of a map by projected scans in four directions.

    Args:
        start: The map, the last branch, and the norm before the scans.
        in_weight: Linear layer before the convolution.
        conv_weight: Kernels of the depthwise convolution, of an odd size.
        x_weight: Projection of each direction to dt_low, B and C (see `ss2d_scan`).
        dt_weight: See `ss2d_scan`.
        dt_bias: See `ss2d_scan`.
        A_log: See `ss2d_scan`.
        D_skip: See `ss2d_scan`.
        norm_weight: Factor of the norm over channels after the scans.
        norm_bias: Added after this norm.
        out_weight: Linear layer after this norm.
        eps: Added to the variance of both norms.
        dtype: Dtype of matrix products and of the branch: that of autocast, if it is enabled. `None`: that of the map.
        backend: Name of the backend. `None`: the first backend to accept the call.

    Returns:
        The sum of the map and the last branch, and the new branch. Scan and norms are computed in float32 at least.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.layers import SS2D
        >>> SS2D(16)(torch.randn(1, 16, 5, 6)).shape
        torch.Size([1, 16, 5, 6])
    """
    inner = (in_weight, conv_weight, x_weight, dt_weight, dt_bias, A_log, D_skip)
    parameters = (*inner, norm_weight, norm_bias, out_weight)
    signature = signature_of("ss2d_branch", backend, *start, *parameters)
    chosen = recall(signature)
    if chosen is None:
        _check(start, *parameters)
        chosen = choose("ss2d_branch", BACKENDS, backend, start, *parameters)
        remember(signature, chosen, operator="ss2d_branch", first=start)
    results = chosen.run(start, *parameters, eps=eps, dtype=start.x.dtype if dtype is None else dtype)
    return cast(tuple[Tensor, Tensor], results)


def _check(
    start: BranchStart,
    in_weight: Tensor,
    conv_weight: Tensor,
    x_weight: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D_skip: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    out_weight: Tensor,
) -> None:
    """Check shapes, dtypes and devices."""
    x = start.x
    require_axes("ss2d_branch", "x", x, "batch dim height width")
    require_axes("ss2d_branch", "conv_weight", conv_weight, "dim 1 size size")
    require_axes("ss2d_branch", "dt_weight", dt_weight, "4 dim rank")
    require_axes("ss2d_branch", "A_log", A_log, "4 dim state")
    dim, size = x.shape[1], conv_weight.shape[-1]
    rank, state = dt_weight.shape[2], A_log.shape[2]
    require_shapes(
        "ss2d_branch",
        *start.expected(),
        Expected("in_weight", in_weight, "dim, dim", (dim, dim)),
        Expected("conv_weight", conv_weight, "dim, 1, size, size", (dim, 1, size, size)),
        Expected("x_weight", x_weight, "4, R + 2N, dim", (4, rank + 2 * state, dim)),
        Expected("dt_weight", dt_weight, "4, dim, R", (4, dim, rank)),
        Expected("dt_bias", dt_bias, "4, dim", (4, dim)),
        Expected("A_log", A_log, "4, dim, N", (4, dim, state)),
        Expected("D_skip", D_skip, "4, dim", (4, dim)),
        Expected("norm_weight", norm_weight, "dim", (dim,)),
        Expected("norm_bias", norm_bias, "dim", (dim,)),
        Expected("out_weight", out_weight, "dim, dim", (dim, dim)),
    )
