"""The compiled CPU backend: threads, unsupported calls, tracing and cache. `test_scans` checks its numbers."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import scanseg
from scanseg.errors import UsageError
from scanseg.ops._support.cpu import MISSING, refuses, run_tasks
from scanseg.ops._support.dispatch import Backend, choose
from scanseg.ops.ss2d import BACKENDS
from scanseg.ops.ss2d.numba_backend import _scan, _scan_backward

from .precision import assert_accurate, cast, run
from .test_scans import map_inputs, scan_map

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

FIRST_USE = """
import sys
from pathlib import Path
import torch
import scanseg.ops
assert "numba" not in sys.modules
from scanseg.ops import ss2d_scan
assert Path(scanseg.__file__).is_relative_to(sys.argv[1])
ones = torch.ones(4, 2, 1)
y = ss2d_scan(torch.ones(1, 2, 1, 1), torch.ones(1, 4, 3, 1, 1), dt_weight=ones, dt_bias=ones[..., 0], A_log=ones,
              D_skip=ones[..., 0], backend="compiled_cpu")
expected = 4 + 4 * torch.nn.functional.softplus(torch.tensor(2.0))
torch.testing.assert_close(y, expected.expand_as(y))
"""


@pytest.mark.parametrize("dim", [1, 16, 17, 50])
def test_results_do_not_depend_on_the_threads(generator, torch_threads, dim):
    inputs = cast(map_inputs(generator, "random", dim=dim, state=2, size=(9, 11)), torch.float32)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    results = []
    for number in (1, 2, 5):
        torch_threads(number)
        results.append(run(scan_map("compiled_cpu"), inputs, grad))
    for other in results[1:]:
        for name in ("output", "grad x", "grad projected", "grad A_log"):
            torch.testing.assert_close(other[name], results[0][name], rtol=0, atol=0)


def test_many_channels_ranks_and_states(generator):
    inputs = cast(map_inputs(generator, "random", dim=37, rank=5, state=4, size=(9, 15)), torch.float32)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    assert_accurate(scan_map("compiled_cpu"), scan_map("reference"), inputs, grad)


@pytest.mark.parametrize("step", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
def test_gradients_stay_finite_at_any_step_size(generator, step):
    inputs = cast(map_inputs(generator, "random"), torch.float32)
    inputs["dt_bias"] = torch.full_like(inputs["dt_bias"], step)
    grad = torch.randn(inputs["x"].shape, generator=generator)
    results = run(scan_map("compiled_cpu"), inputs, grad)
    assert all(tensor.isfinite().all() for tensor in results.values())
    assert_accurate(scan_map("compiled_cpu"), scan_map("reference"), inputs, grad)


@pytest.mark.parametrize("name", ["x", "projected", "dt_weight", "dt_bias", "A_log"])
def test_nan_is_passed_on(generator, name):
    inputs = cast(map_inputs(generator, "random", dim=3), torch.float32)
    inputs[name] = torch.full_like(inputs[name], torch.nan)
    assert scan_map("compiled_cpu")(inputs).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_opcheck(generator, dtype):
    inputs = cast(map_inputs(generator, "random", dim=3), dtype)
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    torch.library.opcheck(_scan, tensors)
    detached = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(_scan_backward, (detached[0].float(), *detached))


def test_is_the_default_on_the_cpu():
    tensor = torch.zeros(1)
    assert choose("ss2d_scan", BACKENDS, None, tensor) is BACKENDS["compiled_cpu"]
    assert choose("ss2d_scan", BACKENDS, None, tensor.to("meta")) is BACKENDS["chunked"]


def test_unsupported_calls_raise_with_a_reason(generator):
    meta = {name: tensor.to("meta") for name, tensor in map_inputs(generator, "random").items()}
    with pytest.raises(UsageError, match="expected tensors on the CPU, got tensors on meta"):
        scan_map("compiled_cpu")(meta)
    reason = refuses(torch.zeros(1, dtype=torch.float8_e4m3fn))
    assert reason == "expected float16, bfloat16, float32 or float64, got torch.float8_e4m3fn"


def test_without_numba_the_next_backend_is_chosen():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'numba' else find(name, *rest)\n"
        "from scanseg.ops import describe_backends\n"
        "reasons = {(s.operator, s.backend): s.reason for s in describe_backends()}\n"
        "assert 'pip install \"scanseg[cpu]\"' in reasons['ss2d_scan', 'compiled_cpu'], reasons\n"
        "assert reasons['ss2d_scan', 'chunked'] is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    table = {
        "compiled": Backend(torch.neg, unavailable="numba is not installed"),
        "plain": Backend(torch.abs),
    }
    assert choose("operator", table, None, torch.zeros(1)) is table["plain"]


@pytest.mark.parametrize("user_cache", [True, False], ids=["user cache", "no cache at all"])
def test_runs_where_the_package_cannot_be_written(tmp_path, user_cache):
    package = tmp_path / "code" / "scanseg"
    ignored = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    shutil.copytree(Path(scanseg.__file__).parent, package, ignore=ignored)
    # A file in place of the folder prevents even root from writing there.
    (package / "ops" / "ss2d" / "__pycache__").write_text("")
    home = tmp_path / "home"
    if user_cache:
        home.mkdir()
    else:
        home.write_text("")
    kept = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    environment = kept | {
        "PYTHONPATH": str(package.parent),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", FIRST_USE, str(package.parent)]
    outcome = subprocess.run(
        command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    assert bool(list(tmp_path.rglob("*.nbi"))) == user_cache


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_creates_its_own_threads(torch_threads):
    # Only the threads are tested, because those of PyTorch do not survive a fork.
    def kernel(done, first, stride):
        done[first::stride] = [threading.get_ident()] * len(done[first::stride])

    torch_threads(2)
    run_tasks(kernel, 2, [0, 0])
    child = os.fork()
    if child == 0:
        done = [0, 0]
        run_tasks(kernel, 2, done)
        os._exit(0 if all(done) else 1)
    assert os.waitpid(child, 0)[1] == 0
