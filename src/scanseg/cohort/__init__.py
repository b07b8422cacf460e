"""Predictions and trainings on several devices and on clusters."""

from scanseg.cohort.engines import EngineName, open_engine
from scanseg.cohort.model_worker import ModelChoice
from scanseg.cohort.prediction import predict_cohort
from scanseg.cohort.slurm_options import split_options

__all__ = ["EngineName", "ModelChoice", "open_engine", "predict_cohort", "split_options"]
