"""Networks with shapes and no values."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = (Tensor.normal_, nn.init.normal_)
"""Functions that draw values in place. Their first argument is the tensor, which `nn.init` passes by its name."""


@contextmanager
def without_values() -> Iterator[None]:
    """Build networks on the meta device, without drawing normally distributed values.

    The networks have shapes and take no memory. For these draws on this device, PyTorch would import its compiler,
    which takes seconds, or wait for a thread that imports it. Selective scans still need it for their initial values.

    Example:
        >>> from scanseg.networks import XLSTMUNet, without_values
        >>> with without_values():
        ...     network = XLSTMUNet(1, 3, spatial_dims=2)
        >>> next(network.parameters()).device
        device(type='meta')
    """
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leave out the functions that draw values."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
