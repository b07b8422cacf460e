"""Experiments of the two papers: protocols, data, reproductions, tables."""

from scanseg.papers.experiments import find_experiment
from scanseg.papers.ready_comparisons import find_comparison, ready_comparisons
from scanseg.papers.reproduce import reproduce
from scanseg.papers.request import ReproductionRequest
from scanseg.papers.table import table_notes, table_rows

__all__ = [
    "ReproductionRequest",
    "find_comparison",
    "find_experiment",
    "ready_comparisons",
    "reproduce",
    "table_notes",
    "table_rows",
]
