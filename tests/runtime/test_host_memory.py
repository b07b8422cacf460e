"""Total and free memory of the host."""

import os
import subprocess
import sys

import pytest

from scanseg.runtime import free_memory, host_memory, physical_memory


def test_free_memory_is_part_of_the_memory():
    assert 2**20 < free_memory() <= physical_memory() < 2**50


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory() == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 2**20


def test_a_system_that_does_not_report_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert free_memory() == physical_memory() // 2
    monkeypatch.delattr(os, "sysconf")
    assert physical_memory() == 2**62
    assert free_memory() == 2**61


@pytest.mark.parametrize("text", ["", "MemFree: 5 kB\n"])
def test_meminfo_without_the_available_memory(monkeypatch, tmp_path, text):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    monkeypatch.setattr(host_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert free_memory() == physical_memory() // 2


def test_kept_memory_is_reused_without_new_pages():
    """The settings are those of a whole process, so another one is measured."""
    script = """
import resource, sys
import numpy as np
from scanseg.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**24)  # 128 MiB: above the largest array that glibc keeps on its own
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
np.ones(2**24)
print(count())
"""
    counts = [
        int(subprocess.run([sys.executable, "-c", script, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "return")
    ]
    if sys.platform != "linux" or counts[1] < 1000:
        pytest.skip("the C library of this system keeps arrays without being asked")
    assert counts[0] < counts[1] / 10
