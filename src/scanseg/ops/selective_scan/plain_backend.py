"""Selective scan by plain operators, for `torch.export`.

Names: see the package.
"""

from torch import Tensor

from scanseg.ops._support.contract import state_dtype
from scanseg.ops._support.plain_recurrence import solve_recurrence_plain


def selective_scan_plain(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, *, reverse: bool
) -> Tensor:
    """Compute the scan, with the arguments of `selective_scan`."""
    dtype, wide = u.dtype, state_dtype(u, delta, A, B, C)
    u, delta, A, B, C = (tensor.to(wide) for tensor in (u, delta, A, B, C))
    skip = None if D is None else D.to(wide)[..., None] * u
    if reverse:
        u, delta, B, C = (tensor.flip(-1) for tensor in (u, delta, B, C))
    # The recurrence has the layout (batch, group, dim, state, token).
    decay = (delta[:, :, :, None] * A[..., None]).exp()
    h = solve_recurrence_plain(decay, (delta * u)[:, :, :, None] * B[:, :, None])
    y = (h * C[:, :, None]).sum(3)
    y = y.flip(-1) if reverse else y
    return (y if skip is None else y + skip).to(dtype)
