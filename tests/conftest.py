"""Fixtures of all tests."""

import gc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Tests share the cores, and their networks are too small for threads. Numerical libraries read these variables at their
# import, which comes later. Processes that tests start inherit them.
_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS")
os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
os.environ["MPLBACKEND"] = "agg"
# Without a GPU, Triton's kernels run in its interpreter. Triton reads this variable when the kernels are defined.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

# Collections of garbage take a tenth of the time of tests that trace networks or emulate kernels. This makes them rare.
gc.set_threshold(100_000, 20, 20)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_collection_finish() -> None:
    """Leave modules and tests out of all later collections of garbage, each of which would take a second."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let libraries free their objects at the end."""
    gc.unfreeze()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End a worker whose GPU a test has broken (an illegal address): xdist starts another."""
    if item.get_closest_marker("gpu") is None or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        time.sleep(1.0)  # the report of the test is on its way
        os._exit(1)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it is not part of the project")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real annotated images, beside the checkout."""
    return _shared("data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of records of the published networks, beside the checkout."""
    return _shared("golden")


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def after_start(self) -> str:
        """Standard error without its first line, which names the work."""
        return self.stderr.partition("\n")[2]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `scanseg WORDS...` in this process."""
    from scanseg.cli import main

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def _process_state() -> dict[str, object]:
    """Return what tests of one process share."""
    torch = sys.modules.get("torch")
    started = torch is not None and hasattr(torch, "get_num_threads")
    return {
        "signal handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
        "variables of threads": [os.environ.get(name) for name in _THREAD_COUNTS],
        "threads of torch": torch.get_num_threads() if started else 1,
    }


def _restore(state: dict[str, object]) -> None:
    for each, handler in zip((signal.SIGINT, signal.SIGTERM), state["signal handlers"], strict=True):
        signal.signal(each, handler)
    for name, value in zip(_THREAD_COUNTS, state["variables of threads"], strict=True):
        os.environ[name] = value
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(state["threads of torch"])


@pytest.fixture(autouse=True)
def unchanged_process():
    """Fail a test that leaves handlers, variables or threads changed: later tests of the process would see them."""
    before = _process_state()
    yield
    after = _process_state()
    changed = [name for name in before if after[name] != before[name]]
    if changed:
        _restore(before)
        pytest.fail(f"the test leaves changed {', '.join(changed)}: {before} before, {after} after")


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter():
    """Run Triton's kernels without its repeated search for names."""
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        yield
        return
    from tests.quick_interpreter import shorten

    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch)
        yield


@pytest.fixture
def torch_threads():
    """Return a function that sets PyTorch's number of threads for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch):
    """Draw figures without the search for a layout, which takes most of their time."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    savefig = Figure.savefig

    def save(figure, *arguments, bbox_inches=None, **options):
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)
    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def generator():
    """A seeded torch generator."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng():
    """A seeded numpy generator."""
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write volumes of nested boxes; `name` is the name of the folder."""
    from tests.factories import write_nested_boxes

    def make(num_cases: int = 3, *, name: str = "raw", **options: Any) -> Path:
        return write_nested_boxes(tmp_path / name, num_cases, **options)

    return make


@pytest.fixture
def volume_writer() -> Callable[..., None]:
    """Write an array (z, y, x) as a volume."""
    from tests.factories import write_volume

    return write_volume
