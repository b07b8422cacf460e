"""The list of all benchmark entries."""

from benchmarks.compiled_entries import compiled_entries
from benchmarks.entries import Entry
from benchmarks.network_entries import network_entries
from benchmarks.operator_entries import operator_entries


def all_entries() -> tuple[Entry, ...]:
    """Return every entry in the order of running, the most important first."""
    return (*operator_entries(), *network_entries(), *compiled_entries())
