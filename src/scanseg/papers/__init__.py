"""Experiments of the two papers: protocols, data, reproductions, tables."""

from scanseg.papers.experiments import find_experiment
from scanseg.papers.ready_comparisons import find_comparison, ready_comparisons
from scanseg.papers.report import is_reproduction, write_reproduction_report
from scanseg.papers.reproduce import reproduce
from scanseg.papers.request import ReproductionRequest
from scanseg.papers.table import table_notes, table_rows

__all__ = [
    "ReproductionRequest",
    "find_comparison",
    "find_experiment",
    "is_reproduction",
    "ready_comparisons",
    "reproduce",
    "table_notes",
    "table_rows",
    "write_reproduction_report",
]
