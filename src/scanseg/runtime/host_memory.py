"""Total and free memory of the host."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_UNKNOWN = 1 << 62
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options in `malloc.h` of glibc."""
_KEPT_BYTES = 1 << 30


def physical_memory() -> int:
    """Return the memory of the computer in bytes.

    Unknown memory counts as 2^62.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # other systems than Linux and macOS
        return _UNKNOWN


def free_memory() -> int:
    """Return the free memory of host or container in bytes.

    File caches count as free.

    Half of the memory counts as free if the system does not report it.
    """
    free = [_available_bytes()]
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdecimal():
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free)


def keep_freed_memory() -> None:
    """Reuse the memory of freed arrays for later ones.

    Otherwise the C library returns it to the system. Each step of a training on the CPU allocates the same arrays. The
    system fills new pages with zeros, which takes an eighth of the time of a small step. It holds for the whole
    process, up to arrays of 1 GiB, so only processes with one task call it. Other C libraries than glibc ignore it.
    """
    with suppress(AttributeError, OSError, TypeError):  # TypeError: Windows has no library of the process
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def _available_bytes() -> int:
    """Return the available memory of the host in bytes, with file caches."""
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(amount.split()[0])
    return physical_memory() // 2
