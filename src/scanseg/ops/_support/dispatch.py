"""Choosing the implementation of an operator: one explicit, ordered table per operator.

A table maps the name of a backend to a `Backend`. The first that accepts a call serves it; one that was asked
for by name serves or raises, and never falls back. Nothing here reads the environment, imports, or keeps state,
so that a choice traces under `torch.compile(fullgraph=True)`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from scanseg.errors import UsageError


def accepts_all(*tensors: Tensor) -> str | None:
    """Refuse nothing: the answer of a backend that serves any dtype, device and size."""
    return None


class Backend(NamedTuple):
    """One implementation of an operator.

    Attributes:
        run: The implementation; it takes the operator's tensors and keyword options after the contract was
            checked.
        refuses: Says in words why it cannot serve a call with these tensors, or None if it can.
        unavailable: Why it can serve no call at all on this machine (with what to install), or None.
        by_name_only: Whether it serves only calls that ask for it by name.
    """

    run: Callable[..., Tensor]
    refuses: Callable[..., str | None] = accepts_all
    unavailable: str | None = None
    by_name_only: bool = False


def choose(
    operator: str, backends: Mapping[str, Backend], name: str | None, *tensors: Tensor | None
) -> Backend:
    """Choose the backend that serves a call.

    Args:
        operator: The operator's name, for messages.
        backends: Its table, in order of preference.
        name: The backend asked for, or None for the first that accepts.
        *tensors: The tensors of the call, shown to each backend's `refuses`.

    Raises:
        UsageError: If `name` is unknown or refuses the call, or if every backend refuses it.
    """
    if name is not None and name not in backends:
        known = ", ".join(backends)
        raise UsageError(f"{operator} has no backend '{name}'; choose one of: {known}.")
    asked = (
        {key: backend for key, backend in backends.items() if not backend.by_name_only}
        if name is None
        else {name: backends[name]}
    )
    refusals = []
    for candidate, backend in asked.items():
        reason = backend.unavailable or backend.refuses(*tensors)
        if reason is None:
            return backend
        refusals.append(f"backend '{candidate}' refuses: {reason}")
    advice = "Leave `backend` out to let another one serve." if name is not None else "Change the arguments."
    raise UsageError(f"{operator}: {'; '.join(refusals)}. {advice}")
