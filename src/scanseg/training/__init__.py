"""Train a network from a plan and a store."""

from scanseg.training.folds import FoldChoice, choose_fold
from scanseg.training.trainer import TrainingResult, train

__all__ = ["FoldChoice", "TrainingResult", "choose_fold", "train"]
