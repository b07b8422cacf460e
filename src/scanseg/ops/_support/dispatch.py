"""Choice of an operator's backend from one explicit, ordered table.

A table maps the name of a backend to a `Backend`. The first backend that accepts a call runs it. A backend that is
selected by name runs the call or raises, and never falls back. Nothing here reads the environment or imports, so that a
choice traces under `torch.compile(fullgraph=True)`. Triton kernels are checked before their first use (`first_use`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.errors import UsageError

CHECKED = "triton"
"""Name of the backends with kernels that are compiled for the user's GPU."""


def accepts_all(*tensors: Tensor) -> str | None:
    """Accept tensors of any dtype, device and size."""
    return None


class Backend(NamedTuple):
    """One implementation of an operator.

    Attributes:
        run: The implementation. It takes the operator's tensors and keyword options, which are checked before.
        refuses: Returns the reason why the backend cannot run a call with these tensors, or `None` if it can.
        unavailable: Why the backend cannot run on this machine at all, with advice. `None`: it can.
        by_name_only: Whether the backend runs only calls that select it by name.
        custom: Whether the backend is a custom operator of this package. `torch.export` then chooses another one, so
            that the exported file can be loaded without this package.
    """

    run: Callable[..., Tensor]
    refuses: Callable[..., str | None] = accepts_all
    unavailable: str | None = None
    by_name_only: bool = False
    custom: bool = False

    def chosen_unnamed(self) -> bool:
        """Return whether a call without a name may choose the backend."""
        return not self.by_name_only and not (self.custom and is_exporting())


def is_exporting() -> bool:
    """Return whether `torch.export` traces the call.

    Under `torch.compile`, PyTorch 2.11 takes `torch.compiler.is_exporting()` for True. The flag behind it is right.
    """
    return bool(torch.compiler._is_exporting_flag)


def _use_unchecked(operator: str, first: Any) -> bool:
    return True


_may_use_kernels: Callable[[str, Any], bool] = _use_unchecked
_is_settled: Callable[[str, Any], bool] = _use_unchecked


def check_kernels_by(may_use: Callable[[str, Any], bool], is_settled: Callable[[str, Any], bool]) -> None:
    """Set the check of Triton kernels before their use.

    Args:
        may_use: Takes the name of an operator and the first tensor of a call, or a value that holds it. Returns whether
            the call may use the kernels.
        is_settled: Takes the same. Returns whether that answer holds for later calls, too.
    """
    global _may_use_kernels, _is_settled
    _may_use_kernels, _is_settled = may_use, is_settled


def is_settled(operator: str, first: Any) -> bool:
    """Return whether later calls like this one choose the same backend.

    Calls that must not be interrupted by a check of the kernels choose one for themselves only.

    Args:
        operator: Name of the operator.
        first: First tensor of the call, or a value that holds it.
    """
    return _is_settled(operator, first)


def choose(operator: str, backends: Mapping[str, Backend], name: str | None, *tensors: object) -> Backend:
    """Choose the backend for a call.

    Args:
        operator: Name of the operator, for messages.
        backends: The operator's table, in order of preference.
        name: Name of the backend. `None`: the first one that accepts the call.
        *tensors: The tensors of the call, or values that hold them, passed to each backend's `refuses`.

    Raises:
        UsageError: The backend `name` is unknown or cannot run the call, or no backend can.
    """
    if name is None:
        for key, backend in backends.items():
            if (
                backend.chosen_unnamed()
                and backend.unavailable is None
                and backend.refuses(*tensors) is None
                and (key != CHECKED or _may_use_kernels(operator, tensors[0]))
            ):
                return backend
    if name is not None and name not in backends:
        known = ", ".join(backends)
        raise UsageError(
            f"{operator}: expected one of the backends {known}, got '{name}'. Choose one of these."
        )
    candidates = (
        {key: backend for key, backend in backends.items() if backend.chosen_unnamed()}
        if name is None
        else {name: backends[name]}
    )
    refusals = []
    for candidate, backend in candidates.items():
        reason = backend.unavailable or backend.refuses(*tensors)
        if reason is None:
            return backend
        refusals.append(f"backend '{candidate}' cannot run: {reason}")
    advice = "Leave `backend` out to use another backend." if name is not None else "Change the arguments."
    raise UsageError(f"{operator}: {'; '.join(refusals)}. {advice}")
