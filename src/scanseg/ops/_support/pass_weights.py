"""Parameters in the dtypes and layouts of kernels, converted once per pass.

A branch needs its weights in 16 bits, the kernels of its convolutions as taps, and the decays of its scan. Converted in
each branch, they take a fifth of the launches of a forward pass. Here one launch converts them for a whole network. It
does so in every pass, because optimizers change parameters in place without notice. Only the memory of the results is
kept. All passes of a network write the same numbers to it, unless parameters change between a forward pass and its
backward pass, which autograd refuses.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.launching import is_compiling_ahead, launch
from scanseg.ops._support.triton import INTERPRETED, MISSING, on_its_device

_LOGGER = logging.getLogger(__name__)

Form = Literal["cast", "taps", "rates", "skips"]
"""`cast`: in the dtype of the pass. `taps`: the sum of depthwise kernels (channel, 1, size, size), padded to the
largest size, as (size * size, channel). `rates`: -exp(A_log) as (4, N, dim). `skips`: the sum of all D."""

_NUMBERS: dict[Form, int] = {"cast": 0, "taps": 1, "rates": 2, "skips": 3}

MOST_SOURCES = 4
"""Maximum number of depthwise kernels that are summed to taps."""

_COLUMNS = 6 + 2 * MOST_SOURCES
"""Numbers of a row: form, target, first element, elements, two sizes, and the sources with a size each."""

MOST_TABLES = 16
"""Tables of a network after which branches convert their parameters. Some wrappers replace parameters in each pass."""

ELEMENTS, BLOCK = 8192, 1024
"""Elements that a program converts in total and at a time."""

MAX_ERROR = 1e-2
"""Largest relative difference of a converted parameter. Rounding to 16 bits gives 4e-3."""

ALIGNMENT = 64
"""The starts of converted parameters are multiples of this number of elements."""


class Wanted(NamedTuple):
    """Request of a converted parameter.

    Attributes:
        form: Form of the result.
        sources: The parameters, one or for `taps` several.
    """

    form: Form
    sources: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        first, *_ = self.sources
        if self.form == "taps":
            return (max(kernel.shape[-1] for kernel in self.sources) ** 2, first.shape[0])
        if self.form == "rates":
            return (first.shape[0], first.shape[2], first.shape[1])
        return tuple(first.shape[1:] if self.form == "skips" else first.shape)

    def expected(self) -> Tensor:
        """Return the result by PyTorch, in the dtype of the parameters."""
        first, *_ = (source.detach() for source in self.sources)
        if self.form == "taps":
            largest = max(kernel.shape[-1] for kernel in self.sources)
            margins = [(largest - kernel.shape[-1]) // 2 for kernel in self.sources]
            pairs = zip(self.sources, margins, strict=True)
            padded = [F.pad(kernel.detach(), (margin,) * 4) for kernel, margin in pairs]
            return torch.stack(padded).sum(0).flatten(1).t()
        if self.form == "rates":
            return -first.exp().mT
        return first.sum(0) if self.form == "skips" else first

    def numbers(self) -> list[int]:
        """Return two sizes, and sources with a size each."""
        first, *_ = self.sources
        major, minor, sizes = 0, 0, [0]
        if self.form == "taps":
            sizes = [kernel.shape[-1] for kernel in self.sources]
            major, minor = max(sizes), first.shape[0]
        elif self.form == "rates":
            major, minor = first.shape[2], first.shape[1]
        elif self.form == "skips":
            major, minor = first.shape
        numbers = [major, minor]
        for source, size in zip(self.sources, sizes, strict=True):
            numbers += (source.data_ptr(), size)
        return numbers + [0, 0] * (MOST_SOURCES - len(sizes))


Requests = Callable[[], Iterable[Sequence[Wanted]]]
"""Returns the requests of each branch. The first source is the first parameter of the branch."""


@dataclass
class _Table:
    """The parameters of a network and their converted forms.

    Attributes:
        places: Dictionaries of modules, and names in them, of all parameters.
        parameters: These parameters. While they live, no other one gets their memory.
        addresses: Their addresses.
        found: Converted parameters of each branch, by the address of its first parameter.
        converted: The requests with their results.
        rows: One row of numbers for each program of the kernel.
        is_checked: Whether results were compared with PyTorch's.
    """

    places: list[tuple[dict[str, Any], str]]
    parameters: Sequence[Tensor | None]
    addresses: list[int]
    found: dict[int, tuple[Tensor, ...]]
    converted: list[tuple[Wanted, Tensor]]
    rows: Tensor
    is_checked: bool = False

    def is_current(self) -> bool:
        """Return whether all parameters have the same memory as before."""
        return _addresses([holder.get(name) for holder, name in self.places]) == self.addresses


class _State(threading.local):
    """The converted parameters in the pass of a thread."""

    dtype: torch.dtype | None = None
    found: Mapping[int, tuple[Tensor, ...]] = {}


_state = _State()
_tables: "WeakKeyDictionary[nn.Module, dict[tuple[torch.device, torch.dtype], _Table]]" = WeakKeyDictionary()
_refused: set[torch.device] = set()
"""GPUs on which the kernel is wrong."""
_numbers_of_tables: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()


def converted_weights(first: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, ...] | None:
    """Return the converted parameters of a branch or layer in this pass.

    Args:
        first: The first parameter of the branch.
        dtype: Dtype of its matrix products. `None`: that of the pass.

    Returns:
        The tensors in the order of the requests, or `None` if the branch converts them itself.
    """
    return _state.found.get(first.data_ptr()) if dtype is None or _state.dtype is dtype else None


@contextmanager
def weights_converted(
    network: nn.Module, x: Tensor, dtype: torch.dtype, requests: Requests
) -> Iterator[None]:
    """Convert the parameters of a network for its pass in the block.

    Nothing is converted if something traces the pass. Branches with other parameters than contiguous float32 tensors on
    the device of the map are left out.

    Args:
        network: The network.
        x: A map of the pass.
        dtype: Dtype of matrix products.
        requests: The converted parameters of each branch.

    Example:
        >>> import torch
        >>> from scanseg.ops import wanted_by_layer, weights_converted
        >>> layer, x = torch.nn.Linear(3, 4), torch.ones(2, 3)
        >>> with weights_converted(layer, x, torch.bfloat16, lambda: [wanted_by_layer(layer.weight, layer.bias)]):
        ...     layer(x).shape
        torch.Size([2, 4])
    """
    table = _table_of(network, x, dtype, requests)
    if table is None:
        yield
        return
    _convert(table.rows, dtype)
    if not table.is_checked and not _is_correct(table, x.device):
        yield
        return
    before = _state.dtype, _state.found
    _state.dtype, _state.found = dtype, table.found
    try:
        yield
    finally:
        _state.dtype, _state.found = before


def _table_of(network: nn.Module, x: Tensor, dtype: torch.dtype, requests: Requests) -> _Table | None:
    if MISSING is not None or not (x.is_cuda or INTERPRETED) or dtype == torch.float64 or is_traced(x):
        return None
    if x.device in _refused:
        return None
    if getattr(network, "_is_replica", False):  # `torch.nn.DataParallel` copies a network for each pass
        return None
    tables = _tables.setdefault(network, {})
    key = (x.device, dtype)
    table = tables.get(key)
    if table is not None and table.is_current():
        return table
    number = _numbers_of_tables.get(network, 0)
    if number >= MOST_TABLES or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    _numbers_of_tables[network] = number + 1
    with torch.inference_mode(mode=False), torch.no_grad():
        table = tables[key] = _new_table(network, x.device, dtype, requests)
    return table


def _new_table(network: nn.Module, device: torch.device, dtype: torch.dtype, requests: Requests) -> _Table:
    places = [(module._parameters, name) for module in network.modules() for name in module._parameters]
    parameters = [holder[name] for holder, name in places]
    own = {id(parameter) for parameter in parameters}
    branches = [wanted for wanted in requests() if _is_convertible(wanted, own, device)]
    flat = [each for wanted in branches for each in wanted]
    is_kept = [each.form == "cast" and dtype == torch.float32 for each in flat]
    results = _allocate([each for each, kept in zip(flat, is_kept, strict=True) if not kept], device, dtype)
    rows: list[list[int]] = []
    converted = []
    for each, kept in zip(flat, is_kept, strict=True):
        converted.append(each.sources[0].detach() if kept else next(results))
        if not kept:
            address, size = converted[-1].data_ptr(), converted[-1].numel()
            head, numbers = [_NUMBERS[each.form], address], each.numbers()
            rows += [[*head, start, size, *numbers] for start in range(0, size, ELEMENTS)]
    remaining, pairs = iter(converted), list(zip(flat, converted, strict=True))
    found = {wanted[0].sources[0].data_ptr(): tuple(islice(remaining, len(wanted))) for wanted in branches}
    table = torch.tensor(rows, dtype=torch.int64).view(-1, _COLUMNS).to(device)
    return _Table(places, parameters, _addresses(parameters), found, pairs, table)


def _is_correct(table: _Table, device: torch.device) -> bool:
    """Return whether the results of a new table equal PyTorch's.

    Nothing is compared while kernels are only compiled, and in the capture of a CUDA graph. A later pass does it then.
    """
    if is_compiling_ahead() or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return True
    with torch.no_grad():
        errors = [_error(result, wanted.expected()) for wanted, result in table.converted]
        worst = torch.stack(errors).max().item() if errors else 0.0
    table.is_checked, table.converted = True, []
    if worst <= MAX_ERROR:
        return True
    _refused.add(device)
    _LOGGER.warning(
        "the Triton kernel that converts parameters is not used on %s: its results are wrong (relative error %.1g, "
        "expected at most %g). PyTorch's own operators compute, more slowly. Install another version of PyTorch, whose "
        "Triton compiles it correctly.",
        *(device, worst, MAX_ERROR),
    )
    return False


def _error(found: Tensor, expected: Tensor) -> Tensor:
    """Return the relative error of a result.

    Parameters that are not finite or vanish have none.
    """
    size = expected.float().norm()
    error = (found.float() - expected.float()).norm() / size
    return torch.where(torch.isfinite(size) & (size > 0), error.nan_to_num(torch.inf), 0.0)


def _is_convertible(wanted: Sequence[Wanted], own: set[int], device: torch.device) -> bool:
    """Return whether the kernel can convert all parameters of a branch."""
    sources = [source for each in wanted for source in each.sources]
    return all(len(each.sources) <= MOST_SOURCES for each in wanted) and all(
        id(source) in own
        and source.dtype == torch.float32
        and source.device == device
        and source.is_contiguous()
        and not is_traced(source)
        for source in sources
    )


def _allocate(wanted: Sequence[Wanted], device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    """Allocate the results, side by side for each dtype."""
    sizes = [each.shape for each in wanted]
    needed = {"cast": 0, "other": 0}
    kinds = ["cast" if each.form == "cast" else "other" for each in wanted]
    starts = []
    for kind, shape in zip(kinds, sizes, strict=True):
        starts.append(needed[kind])
        needed[kind] += -(-torch.Size(shape).numel() // ALIGNMENT) * ALIGNMENT
    memory = {
        kind: torch.empty(number, dtype=dtype if kind == "cast" else torch.float32, device=device)
        for kind, number in needed.items()
    }
    for kind, shape, start in zip(kinds, sizes, starts, strict=True):
        yield memory[kind][start : start + torch.Size(shape).numel()].view(shape)


def _addresses(parameters: Sequence[Tensor | None]) -> list[int]:
    return [0 if parameter is None else parameter.data_ptr() for parameter in parameters]


@on_its_device
def _convert(rows: Tensor, dtype: torch.dtype) -> None:
    """Convert all parameters of a table."""
    import triton.language as tl

    from scanseg.ops._support.triton_kernels import convert_weights

    if rows.shape[0] > 0:
        names = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
        launch(convert_weights, (rows.shape[0],))(
            rows,
            COLUMNS=_COLUMNS,
            SOURCES=MOST_SOURCES,
            CAST=names[dtype],
            ELEMENTS=ELEMENTS,
            BLOCK=BLOCK,
            num_warps=4,
        )
