"""From a plan and a store to a trained model."""

from scanseg.training.signals import InterruptionError, watch_signals
from scanseg.training.trainer import FoldChoice, TrainingResult, choose_fold, train

__all__ = ["FoldChoice", "InterruptionError", "TrainingResult", "choose_fold", "train", "watch_signals"]
