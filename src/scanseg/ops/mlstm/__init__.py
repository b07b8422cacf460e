"""mLSTM cell, a stabilized linear attention with exponential gates.

With F[t] = sum_{r<=t} logsigmoid(f[r]) and D[t,s] = F[t] - F[s] + i[s] for s <= t, m[t] = max_s D[t,s]:

    S[t,s] = (q[t] . k[s] / sqrt(dim)) exp(D[t,s] - m[t])
    h[t]   = sum_s S[t,s] v[s] / (max(|sum_s S[t,s]|, exp(-m[t])) + 1e-6)

Source: Beck et al. 2024 (xLSTM), arXiv:2405.04517, eq. 19-27 and appendix A.3. Backends multiply numerator and
denominator by exp(min(m, 0)), because exp(-m) overflows for very negative gates and turns gradients into NaN.

Names, as in the paper: q, k, v query, key and value, i, f pre-activations of the input and forget gates, C matrix
state, n normalizer state, m stabilizer, h output.
"""

from jaxtyping import Float
from torch import Tensor

from scanseg.ops._support.contract import Expected, require_axes, require_shapes
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops._support.triton import as_triton_backend
from scanseg.ops.mlstm.plain_backend import mlstm_plain
from scanseg.ops.mlstm.pytorch_backend import mlstm_chunked
from scanseg.ops.mlstm.reference import mlstm_reference
from scanseg.ops.mlstm.triton_backend import mlstm_triton

__all__ = ["BACKENDS", "mlstm"]

BACKENDS = {
    "triton": as_triton_backend(mlstm_triton),
    "chunked": Backend(mlstm_chunked, custom=True),
    "plain": Backend(mlstm_plain),
    "reference": Backend(mlstm_reference),
}


def mlstm(
    q: Float[Tensor, "batch head token dim"],
    k: Float[Tensor, "batch head token dim"],
    v: Float[Tensor, "batch head token dim"],
    igate: Float[Tensor, "batch head token"],
    fgate: Float[Tensor, "batch head token"],
    *,
    reverse: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "batch head token dim"]:
    """Run the mLSTM cell over the tokens, from a zero state.

    Args:
        q: Queries. The operator applies the scale 1/sqrt(dim).
        k: Keys.
        v: Values.
        igate: Input gates before the exponential.
        fgate: Forget gates before the sigmoid.
        reverse: Whether to read the tokens from the last to the first. The result stays in the order of `q`.
        backend: Name of the backend. `None`: the first one that accepts the call.

    Returns:
        h in the dtype of `q`. State, gates and sums are float64 if an input is float64, else float32.

    Raises:
        InputError: Shapes, dtypes or devices do not fit together.
        UsageError: The backend is unknown or cannot run the call.

    Example:
        >>> import torch
        >>> from scanseg.ops import mlstm
        >>> q, k, v = torch.randn(3, 1, 2, 10, 4).unbind()
        >>> igate, fgate = torch.zeros(1, 2, 10), torch.full((1, 2, 10), 3.0)
        >>> mlstm(q, k, v, igate, fgate).shape
        torch.Size([1, 2, 10, 4])
    """
    require_axes("mlstm", "q", q, "batch head token dim")
    batch, head, token, dim = q.shape
    axes, gate_axes = "batch, head, token, dim", "batch, head, token"
    require_shapes(
        "mlstm",
        Expected("q", q, axes, (batch, head, token, dim)),
        Expected("k", k, axes, (batch, head, token, dim)),
        Expected("v", v, axes, (batch, head, token, dim)),
        Expected("igate", igate, gate_axes, (batch, head, token)),
        Expected("fgate", fgate, gate_axes, (batch, head, token)),
    )
    return choose("mlstm", BACKENDS, backend, q, k, v, igate, fgate).run(
        q, k, v, igate, fgate, reverse=reverse
    )
