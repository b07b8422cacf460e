"""Trainings as jobs: cross-validations, pairs of recipes, comparisons."""

from scanseg.experiments.comparison import ComparisonOptions, choose_arms, run_comparison
from scanseg.experiments.crossval import CrossValidationResult, cross_validate
from scanseg.experiments.single import TrainingOptions, plan_settings, train
from scanseg.experiments.table import comparison_rows, table_notes
from scanseg.experiments.trials import OUT_OF_TIME, Checkpoint, Stopped, Trial, named, run_trial, watch_time

__all__ = [
    "OUT_OF_TIME",
    "Checkpoint",
    "ComparisonOptions",
    "CrossValidationResult",
    "Stopped",
    "TrainingOptions",
    "Trial",
    "choose_arms",
    "comparison_rows",
    "cross_validate",
    "named",
    "plan_settings",
    "run_comparison",
    "run_trial",
    "table_notes",
    "train",
    "watch_time",
]
