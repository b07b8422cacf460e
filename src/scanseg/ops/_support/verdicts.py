"""Verdicts about the Triton kernels, kept in the user's cache folder.

A verdict is valid for one combination of GPU, driver, PyTorch, Triton, cuDNN and sources of the operators. Each
combination has a file of its own. Verdicts can be made again, so an unreadable file counts as an empty one.
"""

import ctypes
import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from scanseg.files import write_text
from scanseg.runtime import cache_folder

_LOGGER = logging.getLogger(__name__)

SECONDS_TO_WAIT = 120.0
"""Time to wait for another process that checks. Then this process checks too."""

_DRIVER = Path("/proc/driver/nvidia/version")


class Verdict(NamedTuple):
    """Result of the comparison of one operator with float64.

    Attributes:
        operator: Name of the operator.
        dtype: Name of the dtype.
        fault: Why the kernels are not used. `None`: they are correct.
        error: Largest relative error. `None`: there is no finite one.
        date: Day of the comparison, as YYYY-MM-DD.
    """

    operator: str
    dtype: str
    fault: str | None
    error: float | None
    date: str

    @property
    def passed(self) -> bool:
        """Whether the kernels are correct."""
        return self.fault is None


class VerdictFile:
    """Verdicts of one combination of hardware and software.

    A file that cannot be written is reported once in the log, and its verdicts are lost with the process.

    Args:
        combination: Names of hardware and software, and their versions.
        folder: Folder of the files. `None`: that of the user.
    """

    def __init__(self, combination: dict[str, str], *, folder: Path | None = None) -> None:
        self.combination = combination
        self._folder = _default_folder() if folder is None else folder
        digest = hashlib.sha256(json.dumps(combination, sort_keys=True).encode()).hexdigest()
        self._name = f"{digest[:16]}.json"

    @property
    def path(self) -> Path | None:
        """The file. `None`: the user has no cache folder."""
        return None if self._folder is None else self._folder / self._name

    def read(self) -> dict[tuple[str, str], Verdict]:
        """Return the verdicts by operator and dtype. Without a readable file, none."""
        if self.path is None:
            return {}
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["combination"] != self.combination:
                return {}
            verdicts = [_parsed(entry) for entry in document["verdicts"]]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {(verdict.operator, verdict.dtype): verdict for verdict in verdicts}

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Write verdicts beside those in the file, or in their place."""
        if self.path is None:
            return
        known = self.read() | {(verdict.operator, verdict.dtype): verdict for verdict in verdicts}
        document = {
            "combination": self.combination,
            "verdicts": [known[key]._asdict() for key in sorted(known)],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            _report_once(str(self.path.parent), error.strerror or str(error))

    @contextmanager
    def one_process(self) -> Iterator[None]:
        """Let one process at a time check kernels."""
        lock = None
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.path.with_name(f".{self._name}.lock"), timeout=SECONDS_TO_WAIT)
                lock.acquire()
            except (OSError, NotImplementedError, Timeout):
                lock = None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()


def combination_of(device: torch.device) -> dict[str, str]:
    """Return the hardware and software behind the kernels of a GPU.

    Args:
        device: A GPU with CUDA.
    """
    gpu = torch.cuda.get_device_properties(device)
    return {
        "gpu": f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}",
        "driver": _driver_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "triton": _triton_version(),
        "sources": digest_of_sources(),
    }


@cache
def digest_of_sources() -> str:
    """Return a digest of the source files of the operators."""
    digest = hashlib.sha256()
    folder = Path(__file__).resolve().parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _driver_version() -> str:
    """Return the version of the driver, or else of its CUDA."""
    try:
        return _DRIVER.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError:
        return f"CUDA {_driver_cuda_version()}"


def _driver_cuda_version() -> str:
    """Return the CUDA version of the driver's library."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return "unknown"
    return "unknown" if failed else f"{version.value // 1000}.{version.value % 1000 // 10}"


def _triton_version() -> str:
    if find_spec("triton") is None:
        return "not installed"
    import triton

    return str(triton.__version__)


def _default_folder() -> Path | None:
    try:
        return cache_folder() / "kernels"
    except RuntimeError:
        return None


def _parsed(entry: dict[str, Any]) -> Verdict:
    verdict = Verdict(**entry)
    texts = (verdict.operator, verdict.dtype, verdict.date)
    is_valid = (
        all(isinstance(text, str) for text in texts)
        and isinstance(verdict.fault, str | None)
        and isinstance(verdict.error, float | int | None)
    )
    if not is_valid:
        raise ValueError("verdict: expected texts, and an error that is a number or null")
    return verdict


@cache
def _report_once(folder: str, reason: str) -> None:
    """Log once that a folder cannot keep verdicts."""
    _LOGGER.warning(
        "the results of the check of the GPU kernels cannot be kept in %s (%s), so each process checks again. "
        "Make the folder writable, or set XDG_CACHE_HOME to another one.",
        folder,
        reason,
    )
