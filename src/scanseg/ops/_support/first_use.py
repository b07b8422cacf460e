"""Check of Triton kernels at their first use on a machine.

The first call of an operator compares its kernels with float64, forward and gradients, in the dtypes of the call. Wrong
kernels are not used: the next backend of the operator computes. Verdicts are kept on disk (`verdicts`).

Some calls must not be interrupted by a check: those under tracing, in the capture of a CUDA graph, in a backward pass
and in forked processes. They use the kernels unless a verdict is known. Compiled code notes unchecked operators, and
its first run checks them.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.errors import ScansegError
from scanseg.ops._support import accepted_calls, launching
from scanseg.ops._support.dispatch import check_kernels_by
from scanseg.ops._support.eager import is_traced
from scanseg.ops._support.triton import INTERPRETED, on_first_run
from scanseg.ops._support.verdicts import Verdict, VerdictFile, combination_of

_LOGGER = logging.getLogger(__name__)

_NAMES = {"residual_channel_norm": "channel_norm"}
"""Names of operators that share the kernels of another one."""

_BRANCHES = ("ss2d_branch", "feed_forward")
"""Operators whose map may stay in float32 under autocast. Their check in its dtype includes this call."""

ADVICE = (
    "Install another version of PyTorch, whose Triton compiles them correctly. "
    "`scanseg info --verify` checks again."
)

Comparison = tuple[str | None, float | None]
"""Fault, if any, and the largest relative error, if finite."""


class _Use(NamedTuple):
    """An operator in one dtype on one GPU."""

    operator: str
    dtype: torch.dtype
    gpu: int

    @property
    def device(self) -> torch.device:
        """The device. Tests use the CPU, whose index is -1."""
        return torch.device("cuda", self.gpu) if self.gpu >= 0 else torch.device("cpu")

    @property
    def key(self) -> tuple[str, str]:
        """Names of operator and dtype."""
        return self.operator, str(self.dtype).removeprefix("torch.")


class Comparer(NamedTuple):
    """Functions that compare an operator with float64.

    Attributes:
        request: Runs the operator forward and backward, so that its kernels are compiled.
        compare: Returns the comparison. `None`: it is impossible, because memory ran out for example.
    """

    request: Callable[[str, torch.dtype, torch.device], None]
    compare: Callable[[str, torch.dtype, torch.device], Comparison | None]


refused: set[tuple[str, int]] = set()
"""Operators and GPUs with wrong kernels. `torch.compile` reads it."""
_usable: dict[tuple[str, torch.dtype, int, torch.dtype | None], bool] = {}
"""Verdicts by operator, dtype, GPU and dtype of autocast."""
_verdicts: dict[_Use, Verdict | None] = {}
"""Verdicts of this process. `None`: a comparison was impossible."""
_files: dict[int, VerdictFile] = {}
_requested: set[_Use] = set()
"""Uses in a block of `compile_ahead`, whose kernels for the check are compiled with the others."""
_noted: dict[_Use, None] = {}
"""Uses in compiled code, which are checked when it runs."""
_lock = threading.Lock()
_thread = threading.local()
_comparer: Comparer | None = None


def set_comparer(comparer: Comparer) -> None:
    """Set the functions that compare operators.

    Their module imports all operators, so this one cannot import it.

    Args:
        comparer: The functions.
    """
    global _comparer
    _comparer = comparer


def may_use_kernels(operator: str, first: Any) -> bool:
    """Check kernels at their first use, and return whether they may run.

    Args:
        operator: Name of the operator.
        first: First tensor of the call, or a value with this tensor as `x`.

    Raises:
        ScansegError: A kernel has broken the GPU's state in this process.
    """
    tensor = first if isinstance(first, Tensor) else first.x
    if INTERPRETED:
        return True  # nothing is compiled
    if torch.compiler.is_compiling():
        index = tensor.get_device()
        # In this order: the first function may add to the set, and guards hold the set's content when it is read.
        return _may_compile(operator, tensor.dtype, index) and (operator, index) not in refused
    key = _key(operator, tensor)
    usable = _usable.get(key)
    return _decide(key, tensor) if usable is None else usable


def is_settled(operator: str, first: Any) -> bool:
    """Return whether the kernels of a call have a verdict.

    On a CPU they need none.

    Args:
        operator: Name of the operator.
        first: First tensor of the call, or a value with this tensor as `x`.
    """
    tensor = first if isinstance(first, Tensor) else first.x
    return not tensor.is_cuda or _key(operator, tensor) in _usable


def _key(operator: str, tensor: Tensor) -> tuple[str, torch.dtype, int, torch.dtype | None]:
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return operator, tensor.dtype, tensor.get_device(), autocast


def _may_compile(operator: str, dtype: torch.dtype, index: int) -> bool:
    """Return whether compiled code may use the kernels.

    A verdict on disk is used. Otherwise the use is noted.
    """
    if operator in _BRANCHES and torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    use = _Use(_NAMES.get(operator, operator), dtype, index)
    if _comparer is None or getattr(_thread, "checking", False) or use in _verdicts:
        return True
    verdict = None if torch.cuda._is_in_bad_fork() else _file(use).read().get(use.key)
    if verdict is None:
        _noted[use] = None
        if _check_noted not in on_first_run:
            on_first_run.append(_check_noted)
        return True
    _remember(use, verdict)
    return verdict.passed


def _check_noted() -> None:
    """Check the operators of compiled code before it runs.

    Raises:
        ScansegError: Kernels are wrong.
    """
    if not _noted or not _may_check():
        return
    on_first_run.remove(_check_noted)
    uses = list(_noted)
    _noted.clear()
    _check(uses)
    wrong = [use.operator for use in uses if (use.operator, use.gpu) in refused]
    if wrong:
        raise ScansegError(
            f"the Triton kernels of {', '.join(wrong)} are wrong on this GPU, and compiled code has used them. Run the "
            f"program again: the compiled code will use PyTorch's own operators. {ADVICE}"
        )


def _decide(key: tuple[str, torch.dtype, int, torch.dtype | None], tensor: Tensor) -> bool:
    """Return whether kernels may run, and keep final answers."""
    operator, dtype, index, autocast = key
    name = _NAMES.get(operator, operator)
    dtypes = [autocast] if autocast and name in _BRANCHES else dict.fromkeys((dtype, autocast or dtype))
    uses = [_Use(name, each, index) for each in dtypes]
    if _comparer is None or getattr(_thread, "checking", False):
        return True
    unknown = [use for use in uses if use not in _verdicts]
    if unknown and launching.is_compiling_ahead():
        _request(unknown)
        return True
    if unknown and (not _may_check() or is_traced(tensor)):
        return True
    if unknown:
        _check(unknown)
    _usable[key] = all((verdict := _verdicts[use]) is None or verdict.passed for use in uses)
    return _usable[key]


def _may_check() -> bool:
    """Return whether this is a place for a check.

    A comparison allocates memory and waits for the GPU, which captures forbid. In a backward pass it would wait for
    itself.
    """
    if torch.cuda._is_in_bad_fork() or launching.is_compiling_ahead():
        return False
    if torch._C._current_graph_task_id() != -1:
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def _check(uses: list[_Use]) -> None:
    """Compare operators in a new thread, with default modes (autocast, inference)."""
    failure: list[BaseException] = []

    def run() -> None:
        _thread.checking = True
        try:
            with torch.autograd.set_multithreading_enabled(False):
                _check_here(uses)
        except BaseException as error:
            failure.append(error)

    with _lock:
        missing = [use for use in uses if use not in _verdicts]
        if not missing:
            return
        thread = threading.Thread(target=run, name="check of kernels")
        thread.start()
        while thread.is_alive():
            thread.join(launching.SECONDS_BETWEEN_MESSAGES)
            if thread.is_alive():
                names = ", ".join(dict.fromkeys(use.operator for use in missing))
                _LOGGER.warning("checking GPU kernels, once on this machine: %s", names)
    if failure:
        raise failure[0]


def _check_here(uses: list[_Use]) -> None:
    for index in dict.fromkeys(use.gpu for use in uses):
        mine = [use for use in uses if use.gpu == index and use not in _verdicts]
        file = _file(mine[0])
        missing = _read(file, mine)
        if not missing:
            continue
        with file.one_process():
            missing = _read(file, missing)
            found = _compared(missing)
            if found:
                file.add(found)
        if found:
            _raise_if_broken(mine[0].device)


def _read(file: VerdictFile, uses: list[_Use]) -> list[_Use]:
    """Take over verdicts of a file, and return the uses without one."""
    kept = file.read()
    for use in uses:
        if use.key in kept:
            _remember(use, kept[use.key])
    return [use for use in uses if use.key not in kept]


def _compared(uses: list[_Use]) -> list[Verdict]:
    """Compare operators and return the verdicts."""
    assert _comparer is not None
    found = []
    if uses:
        names = ", ".join(f"{use.operator} ({use.key[1]})" for use in uses)
        _LOGGER.info("first use on this machine: comparing the GPU kernels of %s with float64", names)
    for use in uses:
        comparison = _comparer.compare(use.operator, use.dtype, use.device)
        if comparison is None:
            _verdicts[use] = None
            continue
        fault, error = comparison
        found.append(Verdict(*use.key, fault, error, date.today().isoformat()))
        _remember(use, found[-1])
    return found


def _remember(use: _Use, verdict: Verdict) -> None:
    """Keep a verdict in this process, and log a fault."""
    is_new = use not in _verdicts
    _verdicts[use] = verdict
    if verdict.passed:
        return
    accepted_calls.forget()
    refused.update(_with_namesakes(use))
    if is_new:
        _LOGGER.warning(
            "the Triton kernels of %s are not used on %s in %s: %s. PyTorch's own operators compute, more slowly. %s",
            use.operator,
            use.device,
            verdict.dtype,
            verdict.fault,
            ADVICE,
        )


def _with_namesakes(use: _Use) -> set[tuple[str, int]]:
    """Return the operators with the same kernels, with the GPU."""
    return {(use.operator, use.gpu)} | {
        (name, use.gpu) for name, owner in _NAMES.items() if owner == use.operator
    }


def _file(use: _Use) -> VerdictFile:
    if use.gpu not in _files:
        _files[use.gpu] = VerdictFile(combination_of(use.device))
    return _files[use.gpu]


def _raise_if_broken(device: torch.device) -> None:
    """Raise an error if the GPU no longer responds.

    Raises:
        ScansegError: No further call can succeed in this process.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise ScansegError(
            f"a Triton kernel has broken the state of {device} ({str(error).partition(chr(10))[0]}). Run the program "
            f"again: PyTorch's own operators will compute instead. {ADVICE}"
        ) from error


def _request(uses: list[_Use]) -> None:
    """Request the kernels of coming checks in a block of `compile_ahead`.

    They may take longer to compile than the network's own, so they are requested at once.
    """
    new = [use for use in uses if use not in _requested]
    _requested.update(new)

    def run() -> None:
        assert _comparer is not None
        _thread.checking = True
        for use in new:
            if use.key not in _file(use).read():
                _comparer.request(use.operator, use.dtype, use.device)

    if new:
        launching.compile_also(run)


def record(device: torch.device, verdicts: Iterable[Verdict]) -> None:
    """Keep new verdicts for a GPU, and use them in this process.

    Args:
        device: The GPU.
        verdicts: The verdicts.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    verdicts = list(verdicts)
    for verdict in verdicts:
        use = _Use(verdict.operator, getattr(torch, verdict.dtype), index)
        if verdict.passed:
            refused.difference_update(_with_namesakes(use))
        _remember(use, verdict)
    _usable.clear()
    accepted_calls.forget()
    _file(_Use("", torch.float32, index)).add(verdicts)


def kept_verdicts(device: torch.device) -> list[Verdict]:
    """Return the verdicts for a GPU that earlier checks have kept.

    Args:
        device: A GPU with an index.
    """
    return list(VerdictFile(combination_of(device)).read().values())


# As `torch.compiler.assume_constant_result` does, whose import takes a second.
_may_compile._dynamo_marked_constant = True  # type: ignore[attr-defined]
check_kernels_by(may_use_kernels, is_settled)
