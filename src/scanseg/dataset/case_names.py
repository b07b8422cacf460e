"""Case names: they become names of files and folders."""

import re

MAX_NAME_BYTES = 200
"""Maximum length of a case name in UTF-8. File systems allow 255 bytes with the endings of all files."""

_MAX_QUOTED = 60
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_NOT_ON_WINDOWS = frozenset('<>:"|?*')


def find_name_fault(name: str) -> str | None:
    """Return the fault of an invalid case name.

    A case name becomes the name of a folder.

    Args:
        name: Name of a case.

    Returns:
        The fault with its advice, or `None` for a valid name.
    """
    reason = _reason(name)
    if reason is None:
        return None
    quoted = repr(name if len(name) <= _MAX_QUOTED else f"{name[:_MAX_QUOTED]}...")
    return (
        f"case name {quoted}: expected the name of a file without its ending, got {reason}. Rename the case."
    )


def _reason(name: str) -> str | None:
    """Return the part of a name that is not allowed."""
    if not name.strip():
        return "an empty name"
    for character, word in (("/", "a slash"), ("\\", "a backslash")):
        if character in name:
            return word
    if name.startswith("."):
        return "a dot at the start"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "a control character"
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "bytes that are not UTF-8"
    return f"{num_bytes} bytes (at most {MAX_NAME_BYTES})" if num_bytes > MAX_NAME_BYTES else None


def is_portable(name: str) -> bool:
    """Return whether files of a case name can exist on Windows.

    Args:
        name: A valid name of a case.
    """
    return not (_RESERVED.fullmatch(name) or _NOT_ON_WINDOWS & set(name) or name != name.rstrip(". "))
