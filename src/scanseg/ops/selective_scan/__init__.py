"""Selective scan, a linear recurrence with coefficients that depend on the token.

    h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t],    y[t] = <C[t], h[t]> + D u[t]

Source: Gu and Dao 2023, arXiv:2312.00752, eq. 2 and algorithm 2 (B discretized as delta B, as in their code).

Names, as in the paper: u input, delta step size (after softplus), A decay rates (negative), B input and C output
vectors, D skip, h state.
"""

from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops.selective_scan.plain_backend import selective_scan_plain
from scanseg.ops.selective_scan.pytorch_backend import selective_scan_chunked
from scanseg.ops.selective_scan.reference import selective_scan_reference

__all__ = ["BACKENDS", "selective_scan"]

BACKENDS = {
    "chunked": Backend(selective_scan_chunked, custom=True),
    "plain": Backend(selective_scan_plain),
    "reference": Backend(selective_scan_reference),
}


def selective_scan(
    u: Float[Tensor, "batch group dim token"],
    delta: Float[Tensor, "batch group dim token"],
    A: Float[Tensor, "group dim state"],
    B: Float[Tensor, "batch group state token"],
    C: Float[Tensor, "batch group state token"],
    D: Float[Tensor, "group dim"] | None = None,
    *,
    reverse: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "batch group dim token"]:
    """Run the selective scan over the last axis of every sequence.

    Args:
        u: Input.
        delta: Step size, positive (after softplus).
        A: Decay rates, negative.
        B: Input vectors, shared by the channels of a group.
        C: Output vectors, shared by the channels of a group.
        D: Skip, added as D u. `None`: no skip.
        reverse: Whether to read the tokens from the last to the first. The result stays in the order of `u`.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        y in the dtype of `u`. State and sums are float64 if an input is float64, else float32.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import selective_scan
        >>> u, delta = torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 3)
        >>> A, B, C = torch.full((1, 1, 1), -1.0), torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 3)
        >>> [round(value, 4) for value in selective_scan(u, delta, A, B, C).flatten().tolist()]
        [1.0, 1.3679, 1.5032]
    """
    require_axes("selective_scan", "u", u, "batch group dim token")
    require_axes("selective_scan", "A", A, "group dim state")
    batch, group, dim, token = u.shape
    state = A.shape[2]
    arguments = [
        Expected("u", u, "batch, group, dim, token", (batch, group, dim, token)),
        Expected("delta", delta, "batch, group, dim, token", (batch, group, dim, token)),
        Expected("A", A, "group, dim, state", (group, dim, state)),
        Expected("B", B, "batch, group, state, token", (batch, group, state, token)),
        Expected("C", C, "batch, group, state, token", (batch, group, state, token)),
    ]
    if D is not None:
        arguments.append(Expected("D", D, "group, dim", (group, dim)))
    require_shapes("selective_scan", *arguments)
    chosen = choose("selective_scan", BACKENDS, backend, u, delta, A, B, C, D)
    return chosen.run(u, delta, A, B, C, D, reverse=reverse)
