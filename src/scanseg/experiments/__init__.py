"""Trainings as jobs: single trainings, cross-validations, pairs of recipes, comparisons."""

from scanseg.experiments.comparison import ComparisonOptions, choose_arms, run_comparison
from scanseg.experiments.crossval import RECORD as CROSS_VALIDATION_FILE
from scanseg.experiments.crossval import CrossValidationOptions, CrossValidationResult, cross_validate
from scanseg.experiments.job import TrainingJob
from scanseg.experiments.scheduler import OUT_OF_TIME, run_jobs, stop_after
from scanseg.experiments.single import train_model
from scanseg.experiments.table import RECORD as COMPARISON_FILE
from scanseg.experiments.table import comparison_rows, table_notes

__all__ = [
    "COMPARISON_FILE",
    "CROSS_VALIDATION_FILE",
    "OUT_OF_TIME",
    "ComparisonOptions",
    "CrossValidationOptions",
    "CrossValidationResult",
    "TrainingJob",
    "choose_arms",
    "comparison_rows",
    "cross_validate",
    "run_comparison",
    "run_jobs",
    "stop_after",
    "table_notes",
    "train_model",
]
