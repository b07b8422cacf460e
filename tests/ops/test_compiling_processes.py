"""Kernels are compiled in forked processes, with a file in the place of Triton's cache."""

import os
import signal
import time

import pytest

from scanseg.ops._support import compiling_processes
from scanseg.ops._support.compiling_processes import SUPPORTED, compile_in_a_process

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(not SUPPORTED, reason="kernels are compiled in threads on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compilation that keeps the number of its process in a file."""
    monkeypatch.setattr(compiling_processes, "_mark_reading", lambda: None)
    monkeypatch.setattr(compiling_processes, "_uses_cache", lambda: True)
    monkeypatch.setattr(compiling_processes, "build_launcher", lambda kernel: None)
    compiler, fork = Compiler(tmp_path / "cache"), os.fork
    monkeypatch.setattr(os, "fork", lambda: compiler.note(fork()))
    return compiler


class Compiler:
    def __init__(self, cache):
        self.cache, self.before_compiling, self.process = cache, lambda: None, 0

    def note(self, process):
        self.process = process
        return process

    def __call__(self):
        if not self.cache.exists():
            if compiling_processes._state.only_cached:
                raise compiling_processes._NotCachedError
            self.before_compiling()
            self.cache.write_text(str(os.getpid()), encoding="utf-8")
        return int(self.cache.read_text(encoding="utf-8"))


def assert_no_process_is_left(compiler):
    assert compiler.process
    with pytest.raises(ChildProcessError):
        os.waitpid(compiler.process, os.WNOHANG)


def test_a_missing_kernel_is_compiled_in_another_process(compiler):
    assert compile_in_a_process(compiler) != os.getpid()
    assert_no_process_is_left(compiler)


def test_a_kernel_in_the_cache_needs_no_process(compiler, monkeypatch):
    compiler.cache.write_text("7", encoding="utf-8")
    monkeypatch.setattr(os, "fork", lambda: 1 / 0)
    assert compile_in_a_process(compiler) == 7


def test_the_launcher_is_built_there(compiler, monkeypatch, tmp_path):
    log = tmp_path / "log"

    def build_launcher(kernel):
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")

    monkeypatch.setattr(compiling_processes, "build_launcher", build_launcher)
    process = compile_in_a_process(compiler)
    assert log.read_text(encoding="utf-8").split() == [str(process), str(os.getpid())]


def raise_an_error():
    raise ValueError("no kernel")


@pytest.mark.parametrize(
    "end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3), raise_an_error]
)
def test_after_a_process_that_ends_early_this_one_compiles(compiler, end):
    here = os.getpid()
    compiler.before_compiling = lambda: None if os.getpid() == here else end()
    assert compile_in_a_process(compiler) == here
    assert_no_process_is_left(compiler)


def test_a_process_that_hangs_is_ended(compiler, monkeypatch):
    here = os.getpid()
    monkeypatch.setattr(compiling_processes, "MAX_SECONDS", 0.2)
    compiler.before_compiling = lambda: None if os.getpid() == here else time.sleep(60)
    assert compile_in_a_process(compiler) == here
    assert_no_process_is_left(compiler)


@pytest.mark.parametrize("is_supported", [True, False])
def test_without_another_process_this_one_compiles(compiler, monkeypatch, is_supported):
    def refuse():
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(compiling_processes, "SUPPORTED", is_supported)
    compiling_processes._state.only_cached = False
    assert compile_in_a_process(compiler) == os.getpid()


def test_an_error_of_the_compilation_is_raised(compiler):
    compiler.before_compiling = raise_an_error
    with pytest.raises(ValueError, match="no kernel"):
        compile_in_a_process(compiler)
    assert not compiling_processes._state.only_cached
