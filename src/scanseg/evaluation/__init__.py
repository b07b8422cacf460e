"""Scores of predictions against references: overlap, surface distances, volumes, reports."""

from scanseg.evaluation.aligned import read_maps
from scanseg.evaluation.files import report_files, write_report
from scanseg.evaluation.folders import evaluate
from scanseg.evaluation.instance_conversion import convert_to_instances
from scanseg.evaluation.instance_folders import (
    evaluate_instances,
    evaluate_instances_by_iou,
    instance_rows,
    instances_of,
    make_instance_report,
)
from scanseg.evaluation.instances import InstanceScores, score_instances
from scanseg.evaluation.label_source import find_labels
from scanseg.evaluation.pairs import list_label_maps
from scanseg.evaluation.report import CaseScores, find_unit, make_report
from scanseg.evaluation.rules import METRIC_RULES
from scanseg.evaluation.scores import score_case
from scanseg.evaluation.table import summary_rows
from scanseg.evaluation.tolerances import parse_tolerances, preset_tolerances
from scanseg.specs import Report

__all__ = [
    "METRIC_RULES",
    "CaseScores",
    "InstanceScores",
    "Report",
    "convert_to_instances",
    "evaluate",
    "evaluate_instances",
    "evaluate_instances_by_iou",
    "find_labels",
    "find_unit",
    "instance_rows",
    "instances_of",
    "list_label_maps",
    "make_instance_report",
    "make_report",
    "parse_tolerances",
    "preset_tolerances",
    "read_maps",
    "report_files",
    "score_case",
    "score_instances",
    "summary_rows",
    "write_report",
]
