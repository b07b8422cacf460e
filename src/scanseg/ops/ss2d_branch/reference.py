"""SS2D by separate operators, for any device and dtype."""

import torch
from torch import Tensor
from torch.nn import functional as F

from scanseg.ops._support.branch import BranchStart
from scanseg.ops._support.branch_parts import start_branch
from scanseg.ops.channel_norm import channel_norm
from scanseg.ops.depthwise import depthwise_conv
from scanseg.ops.ss2d import ss2d_scan


def ss2d_branch_composed(
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
    *,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Compute the branch, with the arguments of `ss2d_branch`.

    Under autocast its dtype is `dtype`.
    """
    total, x = start_branch(start, eps=eps, dtype=dtype)
    x = F.linear(x.movedim(1, -1), in_weight).movedim(-1, 1)
    if not x.is_cuda:
        x = x.contiguous()  # kernels on the CPU read channel by channel
    x = depthwise_conv(x, conv_weight, activation="silu")
    # The projection acts on single pixels, so one product serves all four orders, without a copy of the map.
    weight = x_weight.flatten(0, 1)
    projected = (
        F.linear(x.movedim(1, -1), weight).movedim(-1, 1)
        if x.is_cuda
        else F.conv2d(x, weight[:, :, None, None])
    )
    y = ss2d_scan(
        x,
        projected.unflatten(1, x_weight.shape[:2]),
        dt_weight=dt_weight,
        dt_bias=dt_bias,
        A_log=A_log,
        D_skip=D_skip,
    )
    normed = channel_norm(y, norm_weight, norm_bias, eps=eps, dtype=dtype)
    return total, F.linear(normed.to(x.dtype).movedim(1, -1), out_weight).movedim(-1, 1)
