"""Many cases or trainings at once: several devices, Ray clusters, SLURM."""

from scanseg.cohort.model_worker import ModelChoice
from scanseg.cohort.prediction import predict_cohort

__all__ = ["ModelChoice", "predict_cohort"]
