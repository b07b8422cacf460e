"""Parallel solution of the linear recurrence h[t] = decay[t] h[t-1] + values[t].

The odd-even scheme joins neighbouring tokens in pairs, solves the recurrence of half the length over the pairs in the
same way, and fills in the tokens between. It takes three passes per level, log2(token) levels, and work linear in the
number of tokens. Only products of decays are formed, never quotients, so decays in [0, 1] cannot overflow.

Sources: Brent and Kung 1982, "A regular layout for parallel adders", and Blelloch 1990, "Prefix sums and their
applications", section 1.4 (recurrences as scans).
"""

import torch
from torch import Tensor

from scanseg.ops._support.eager import short_path


@torch.library.custom_op("scanseg::solve_recurrence_", mutates_args=("values",))
def recurrence_operator(
    decay: Tensor,
    values: Tensor,
    reverse: list[bool],
    adjoint: bool,  # noqa: FBT001 (part of the operator's schema)
) -> None:
    """Replace values by the states of one or two passes, in place.

    The operator is opaque to `torch.compile`, which would otherwise turn every strided write into a copy of the whole
    tensor.

    Args:
        decay: Factor from the previous token, (pass, group, token, ...). The first factor of a pass is not used. The
            axes after the third one broadcast against those of `values`.
        values: Inputs (pass, group, token, ...), overwritten by the states.
        reverse: For each pass (1 or 2), whether it runs from the last token to the first.
        adjoint: Whether to solve the transposed recurrence, which carries gradients from the end of a pass to its
            start: g[t] = decay[t+1] g[t+1] + values[t].
    """
    links = _window(decay, reverse, forward=1, backward=0, count=decay.shape[2] - 1, step=1)
    _solve(links, values, [backward != adjoint for backward in reverse])


@recurrence_operator.register_fake
def _(decay: Tensor, values: Tensor, reverse: list[bool], adjoint: bool) -> None:  # noqa: FBT001
    return None


solve_recurrence_ = short_path(recurrence_operator)
"""The operator, called without `torch.library` outside of tracing. Its first call there would load the compiler."""


def _solve(links: Tensor, values: Tensor, reverse: list[bool]) -> None:
    """Solve one level of the scheme, in place.

    A pass in reverse is the exact mirror image of a forward pass: index t becomes token - 1 - t.

    Args:
        links: Factor between each token and the next, in either direction.
        values: Inputs, overwritten by the states.
        reverse: For each pass, whether it runs from the last token to the first.
    """
    token = values.shape[2]
    if token < 2:
        return
    pairs, gaps, odd = token // 2, (token - 1) // 2, token % 2

    def every_second(tensor: Tensor, forward: int, backward: int, count: int) -> Tensor:
        return _window(tensor, reverse, forward=forward, backward=backward, count=count, step=2)

    joined = every_second(values, 1, odd, pairs)
    joined.addcmul_(every_second(links, 0, odd, pairs), every_second(values, 0, odd + 1, pairs))
    joined_links = every_second(links, 1, odd, pairs - 1) * every_second(links, 2, odd + 1, pairs - 1)
    _solve(joined_links, joined, reverse)
    filled = every_second(values, 2, 1 - odd, gaps)
    filled.addcmul_(every_second(links, 1, 1 - odd, gaps), every_second(values, 1, 2 - odd, gaps))


def _window(
    tensor: Tensor, reverse: list[bool], *, forward: int, backward: int, count: int, step: int
) -> Tensor:
    """View every `step`-th token of each pass, `count` tokens in all.

    The first token is `forward` in a forward pass and `backward` in a reverse pass. The start of a second pass enters
    the stride between the passes, so that one kernel serves both directions and nothing is flipped.
    """
    starts = [backward if is_reverse else forward for is_reverse in reverse]
    size, stride = list(tensor.shape), list(tensor.stride())
    offset = tensor.storage_offset() + starts[0] * stride[2]
    size[2] = count
    stride[0] += (starts[-1] - starts[0]) * stride[2]
    stride[2] *= step
    return tensor.as_strided(size, stride, offset)
