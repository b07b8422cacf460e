"""Trainings as jobs: cross-validations, pairs of recipes, comparisons."""

from scanseg.experiments.comparison import StudyOptions, choose_cells, run_study
from scanseg.experiments.crossval import CrossValidationResult, cross_validate
from scanseg.experiments.single import TrainingOptions, plan_settings, train
from scanseg.experiments.table import said_of, study_rows
from scanseg.experiments.trials import OUT_OF_TIME, Checkpoint, Stopped, Trial, named, run_trial, watch_time

__all__ = [
    "OUT_OF_TIME",
    "Checkpoint",
    "CrossValidationResult",
    "Stopped",
    "StudyOptions",
    "TrainingOptions",
    "Trial",
    "choose_cells",
    "cross_validate",
    "named",
    "plan_settings",
    "run_study",
    "run_trial",
    "said_of",
    "study_rows",
    "train",
    "watch_time",
]
