"""Scores of segmentations against references: overlap, surface distances, volumes, and their report."""

from scanseg.evaluation.folders import evaluate
from scanseg.evaluation.instance_folders import (
    convert_to_instances,
    evaluate_instances,
    instance_rows,
    make_instance_report,
)
from scanseg.evaluation.instances import InstanceScores, find_instances, score_instances
from scanseg.evaluation.overlap import Overlap, count_overlaps
from scanseg.evaluation.report import CaseScores, make_report, summarise
from scanseg.evaluation.rules import METRIC_RULES, Agreement, MetricRule
from scanseg.evaluation.scores import LabelScores, score_case
from scanseg.evaluation.surface import SurfaceDistances, hausdorff_95, surface_dice, surface_distances
from scanseg.evaluation.surfels import surfel_codes, surfel_sizes
from scanseg.evaluation.table import summary_rows
from scanseg.evaluation.tolerances import (
    TOLERANCE_MM,
    TOLERANCE_PRESETS,
    parse_tolerances,
    preset_tolerances,
)
from scanseg.specs import Report

__all__ = [
    "METRIC_RULES",
    "TOLERANCE_MM",
    "TOLERANCE_PRESETS",
    "Agreement",
    "CaseScores",
    "InstanceScores",
    "LabelScores",
    "MetricRule",
    "Overlap",
    "Report",
    "SurfaceDistances",
    "convert_to_instances",
    "count_overlaps",
    "evaluate",
    "evaluate_instances",
    "find_instances",
    "hausdorff_95",
    "instance_rows",
    "make_instance_report",
    "make_report",
    "parse_tolerances",
    "preset_tolerances",
    "score_case",
    "score_instances",
    "summarise",
    "summary_rows",
    "surface_dice",
    "surface_distances",
    "surfel_codes",
    "surfel_sizes",
]
