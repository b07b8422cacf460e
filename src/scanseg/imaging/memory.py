"""Memory of the computer."""

import os


def physical_memory() -> int:
    """Return the memory of the computer in bytes.

    Unknown memory counts as 2^62.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # other systems than Linux and macOS
        return 1 << 62
