"""Linear recurrence h[t] = decay[t] h[t-1] + values[t] by plain operators, for any number of tokens.

`torch.export` keeps these operators in its graph, which has the same nodes for every number of tokens. Chunks are
solved in parallel, and their last states are the values of a recurrence over chunks, which is solved in the same way.
Each level shortens the sequence by the length of a chunk. The sequence after the last level, of one token for up to
a million tokens, is solved by a triangular matrix. Only products of decays are formed, so decays in [0, 1] cannot
overflow.

Source: Hillis and Steele 1986, "Data parallel algorithms" (within a chunk).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 64
_LEVELS = 2


def solve_recurrence_plain(decay: Tensor, values: Tensor, *, levels: int = _LEVELS) -> Tensor:
    """Return the states of a recurrence over the last axis.

    Args:
        decay: Factor from the previous token, (..., token). The first factor is not used.
        values: Inputs (..., token) of the same shape.
        levels: Number of levels of chunks, before the triangular matrix.

    Returns:
        The states (..., token).
    """
    if levels == 0:
        return _solve_by_matrix(decay, values)
    token = values.shape[-1]
    if isinstance(token, int) and token <= _CHUNK:
        return _solve_chunks(decay, values)[1]
    num_chunks = count_chunks(token, _CHUNK)
    padding = num_chunks * _CHUNK - token
    shape = (*values.shape[:-1], num_chunks, _CHUNK)
    reach, states = _solve_chunks(
        F.pad(decay, (0, padding), value=1.0).reshape(shape), F.pad(values, (0, padding)).reshape(shape)
    )
    ends = solve_recurrence_plain(reach[..., -1], states[..., -1], levels=levels - 1)
    states = states + reach * _shifted(ends, 1, fill=0.0)[..., None]
    return states.flatten(-2)[..., :token]


def count_chunks(token: int, chunk: int) -> int:
    """Return the number of chunks that hold all tokens.

    For a dynamic number of tokens, one chunk of padding is added. An axis of one chunk would fix the number of chunks
    in an exported graph, because PyTorch broadcasts axes of size 1.

    Args:
        token: Number of tokens, from 1 on.
        chunk: Tokens of a chunk.
    """
    return (token + chunk - 1) // chunk + (0 if isinstance(token, int) else 1)


def _solve_chunks(decay: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Solve short sequences from a zero state.

    Returns:
        The product of the decays up to each token, and the states. Both are (..., token).
    """
    step = 1
    while step < _CHUNK:
        values = values + decay * _shifted(values, step, fill=0.0)
        decay = decay * _shifted(decay, step, fill=1.0)
        step *= 2
    return decay, values


def _solve_by_matrix(decay: Tensor, values: Tensor) -> Tensor:
    """Solve sequences by the decays between all pairs of tokens."""
    total = decay.clamp(min=torch.finfo(decay.dtype).tiny).log().cumsum(-1)
    weights = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    return (weights * values[..., None, :]).sum(-1)


def _shifted(tensor: Tensor, step: int, *, fill: float) -> Tensor:
    """Shift the last axis to later tokens, and fill the first ones."""
    return F.pad(tensor, (step, 0), value=fill)[..., : tensor.shape[-1]]
