"""From a plan and a store to a trained model."""

from scanseg.training.cases import FoldChoice, choose_fold
from scanseg.training.signals import InterruptionError, watch_signals
from scanseg.training.trainer import TrainingResult, train

__all__ = ["FoldChoice", "InterruptionError", "TrainingResult", "choose_fold", "train", "watch_signals"]
