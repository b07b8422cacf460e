"""Scores of segmentations against references: overlap, surface distances, volumes, and their report."""

from scanseg.evaluation.folders import evaluate
from scanseg.evaluation.overlap import Overlap, count_overlaps
from scanseg.evaluation.report import CaseScores, make_report, summarise
from scanseg.evaluation.rules import EMPTY_RULES, Agreement, EmptyRule
from scanseg.evaluation.scores import TOLERANCE_MM, LabelScores, score_case
from scanseg.evaluation.surface import hausdorff_95, surface_dice
from scanseg.evaluation.surfels import surfel_codes, surfel_sizes
from scanseg.evaluation.table import summary_rows
from scanseg.specs import Report

__all__ = [
    "EMPTY_RULES",
    "TOLERANCE_MM",
    "Agreement",
    "CaseScores",
    "EmptyRule",
    "LabelScores",
    "Overlap",
    "Report",
    "count_overlaps",
    "evaluate",
    "hausdorff_95",
    "make_report",
    "score_case",
    "summarise",
    "summary_rows",
    "surface_dice",
    "surfel_codes",
    "surfel_sizes",
]
