"""Launching of kernels and their compilation ahead, on a simulated H100 and on a real GPU."""

import ast
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import scanseg
from scanseg.ops import instance_norm, mlstm
from scanseg.ops._support import launching
from scanseg.ops._support.launching import MAX_THREADS, Launch, compile_ahead, cores_for_compiling
from scanseg.ops._support.triton import INTERPRETED

triton = pytest.importorskip("triton")


@pytest.fixture(scope="module")
def imagined(tmp_path_factory):
    """Return the kernels that were compiled and launched on a simulated GPU, with an empty cache."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = Path(__file__).with_name("imagined_gpu.py")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", program, "2"],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))},
        timeout=280,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU, a launch does not compare dtypes")
def test_a_launch_has_fixed_dtypes():
    from scanseg.ops._support.triton_kernels import sum_rows

    planned = Launch(sum_rows, (1, 1), (8, 4), BLOCK_ROWS=8, BLOCK=4, num_warps=1)
    parts = torch.empty(1, 4)
    planned(torch.ones(8, 4), parts)
    planned(torch.full((8, 4), 2.0), parts)
    assert parts.tolist() == [[16.0] * 4]
    with pytest.raises(
        TypeError, match=r"Launch of sum_rows: expected tensors of .* Keep one launch for each"
    ):
        planned(torch.ones(8, 4, dtype=torch.bfloat16), parts)


def test_nothing_is_launched_while_kernels_are_compiled_ahead(imagined):
    assert imagined["launched_in_block"] == 0


def test_forward_and_backward_kernels_are_compiled_once_each(imagined):
    names = [text.partition("[")[0] for text in imagined["compiled"]]
    assert {"sum_gates", "query_gradients", "key_gradients"} <= set(names)
    assert {name for name in names if "backward" in name or "gradient_kernel" in name}
    assert len(imagined["compiled"]) == len(set(imagined["compiled"]))


def test_the_same_pass_afterwards_compiles_nothing_and_launches_everything(imagined):
    assert imagined["compiled_later"] == []
    compiled = {text.partition("[")[0] for text in imagined["compiled"]} - {"write"}
    assert set(imagined["launched_later"]) == compiled


def test_other_threads_go_on_launching(imagined):
    assert imagined["launched_elsewhere"] == ["write"]


def test_a_thread_that_has_ended_does_not_count_as_compiling():
    """A later thread may have its number."""
    compiling = []
    with ThreadPoolExecutor(1) as pool:
        compilation = launching._Compilation(pool, {threading.get_ident()}, 1)
        compilation.run_in_a_thread(lambda: compiling.append(compilation.applies_to_this_thread()))
        compilation.wait(lambda done, total: None)
    assert compiling == [True]
    assert compilation._threads == {threading.get_ident()}


def test_the_number_of_compiled_kernels_is_reported(imagined):
    counts = imagined["reported"]
    # Without the kernel of the other thread.
    total = len(imagined["compiled"]) - 1
    assert counts == [[done, total] for done in range(1, total + 1)]


def test_launchers_are_built_in_the_compiling_threads(imagined):
    built = imagined["launchers"]
    assert len(built["in_block"]) == len(imagined["reported"])
    assert built["on_main_thread"] == []


def test_a_kernel_that_cannot_be_compiled_raises_at_its_launch(imagined):
    assert "power of 2" in imagined["error"]


@pytest.mark.skipif(not INTERPRETED, reason="the kernels are a GPU's")
def test_a_pass_in_the_interpreter_gives_the_usual_result():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    weight, bias = torch.ones(3), torch.zeros(3)
    with compile_ahead(2):
        inside = instance_norm(x, weight, bias, backend="triton")
    torch.testing.assert_close(inside, instance_norm(x, weight, bias, backend="reference"))


def test_threads_are_shared_among_processes():
    assert 1 <= cores_for_compiling() <= MAX_THREADS
    assert cores_for_compiling(num_sharing=10_000) == 1


def test_every_kernel_is_launched_by_the_shared_function():
    """`kernel[grid](...)` would launch inside `compile_ahead`."""
    folder = Path(scanseg.__file__).parent / "ops"
    found = []
    for path in folder.rglob("*.py"):
        if not path.name.startswith("launching"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
            found += [f"{path.name}:{call.lineno}" for call in calls if isinstance(call.func, ast.Subscript)]
    assert found == []


@pytest.mark.gpu
def test_on_a_gpu_the_real_pass_compiles_nothing(tmp_path, monkeypatch, generator):
    """The backward pass is included, which autograd runs in a separate thread."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    compiled = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_post_compile_hook", lambda *, repr, **others: compiled.append(repr)
    )
    # Sizes that no other test has, since a process keeps its kernels.
    q, k, v = (torch.randn(2, 3, 77, 56, generator=generator).cuda().requires_grad_() for _ in range(3))
    gates = torch.randn(2, 3, 77, generator=generator).cuda()

    def learn():
        h = mlstm(q, k, v, gates, gates, backend="triton")
        return (h, *torch.autograd.grad(h.square().sum(), (q, k, v)))

    with compile_ahead(4, backward_on=q.device):
        learn()
    ahead = list(compiled)
    results = learn()
    assert {"sum_gates", "query_gradients"} <= {text.partition("[")[0] for text in ahead}
    assert compiled == ahead
    expected = mlstm(q, k, v, gates, gates, backend="chunked")
    torch.testing.assert_close(results[0], expected, atol=2e-3, rtol=2e-3)
    assert all(bool(result.isfinite().all()) for result in results)


@pytest.mark.gpu
def test_on_a_gpu_another_thread_launches_meanwhile(generator):
    x = torch.randn(2, 16, 8, 8, generator=generator).cuda()
    weight, bias = torch.ones(16, device="cuda"), torch.zeros(16, device="cuda")
    expected = instance_norm(x, weight, bias, backend="triton")
    results = []
    with compile_ahead(2, backward_on=x.device):
        thread = threading.Thread(
            target=lambda: results.append(instance_norm(x, weight, bias, backend="triton"))
        )
        thread.start()
        thread.join()
    assert torch.equal(results[0], expected)
